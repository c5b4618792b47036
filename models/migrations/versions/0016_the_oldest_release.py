"""The oldest release that may work with the database: it is let in although it does not know the newest schema."""

import sqlalchemy as sa
from alembic import op

revision = '0016'
down_revision = '0015'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        'schema_floor',
        sa.Column('id', sa.Integer(), nullable=False),
        sa.Column('oldest', sa.String(length=10), nullable=False),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_schema_floor')),
    )


def downgrade() -> None:
    raise NotImplementedError('go back by restoring the copy made before the upgrade')
