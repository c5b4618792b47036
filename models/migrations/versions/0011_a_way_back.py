"""A restored binding's next run is a full one; who did what by which door; contacts that are forgotten."""

import sqlalchemy as sa
from alembic import op

import models.types

revision = '0011'
down_revision = '0010'
branch_labels = None
depends_on = None


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')
    instant = models.types.UtcDateTime(timezone=True)
    op.add_column('cohort_binding', sa.Column('full_next', sa.Boolean(), server_default=sa.false(), nullable=False))
    op.create_index('ix_rejection_last_seen', 'rejection', ['last_seen'])

    op.add_column('audit_event', sa.Column('door', sa.String(length=20), nullable=True))
    op.add_column('audit_event', sa.Column('binding_id', number, nullable=True))
    op.create_index('ix_audit_event_binding', 'audit_event', ['binding_id', 'id'])
    op.execute(
        "UPDATE audit_event SET binding_id = (SELECT id FROM cohort_binding WHERE cohort_binding.name = audit_event.name)"
        " WHERE kind = 'binding'"
    )
    op.execute(
        'UPDATE audit_event SET binding_id ='
        ' (SELECT sync_run.binding_id FROM sync_run WHERE sync_run.id = CAST(audit_event.name AS BIGINT))'
        " WHERE kind = 'run'"
    )

    op.create_table(
        'forgotten_contact',
        sa.Column('id', number, nullable=False),
        sa.Column('digest', sa.String(length=64), nullable=False),
        sa.Column('created_at', instant, nullable=False),
        sa.Column('actor', sa.String(length=100), nullable=False),
        sa.Column('removed_at', instant, nullable=True),
        sa.Column('leaving', sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_forgotten_contact')),
        sa.UniqueConstraint('digest', name=op.f('uq_forgotten_contact_digest')),
        sqlite_autoincrement=True,
    )
    op.create_table(
        'erasure_key',
        sa.Column('id', number, nullable=False),
        sa.Column('token', sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_erasure_key')),
    )


def downgrade() -> None:
    raise NotImplementedError('go back by restoring the copy made before the upgrade')
