"""What is odd about a snapshot's file, and the exits that were spared."""

import sqlalchemy as sa
from alembic import op

revision = '0009'
down_revision = '0008'
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ('odd', 'spanned', 'spared'):
        op.add_column('sync_run', sa.Column(name, sa.Integer(), server_default='0', nullable=False))
    op.add_column('sync_run', sa.Column('odd_examples', sa.String(length=200), nullable=True))


def downgrade() -> None:
    raise NotImplementedError('go back by restoring the copy made before the upgrade')
