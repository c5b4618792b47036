"""Who asked for a run, and its claims: when a worker had it, at which stage, and how it left it."""

import sqlalchemy as sa
from alembic import op

import models.types

revision = '0014'
down_revision = '0013'
branch_labels = None
depends_on = None


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')
    instant = models.types.UtcDateTime(timezone=True)
    op.add_column('sync_run', sa.Column('actor', sa.String(length=100), nullable=True))
    op.create_table(
        'stage_claim',
        sa.Column('run_id', number, nullable=False),
        sa.Column('fence', sa.Integer(), nullable=False),
        sa.Column('stage', sa.String(length=10), nullable=False),
        sa.Column('worker', sa.String(length=100), nullable=True),
        sa.Column('claimed_at', instant, nullable=False),
        sa.Column('left_at', instant, nullable=True),
        sa.Column('left', sa.String(length=10), nullable=True),
        sa.Column('code', sa.String(length=40), nullable=True),
        sa.ForeignKeyConstraint(['run_id'], ['sync_run.id'], name=op.f('fk_stage_claim_run_id'), ondelete='CASCADE'),
        sa.PrimaryKeyConstraint('run_id', 'fence', name=op.f('pk_stage_claim')),
    )


def downgrade() -> None:
    raise NotImplementedError('go back by restoring the copy made before the upgrade')
