"""Synchronous rows, as a destination's fallback."""

import sqlalchemy as sa
from alembic import op

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table('destination', schema=None) as batch_op:
        batch_op.add_column(sa.Column('write_mode', sa.String(length=10), server_default='async', nullable=False))


def downgrade() -> None:
    with op.batch_alter_table('destination', schema=None) as batch_op:
        batch_op.drop_column('write_mode')
