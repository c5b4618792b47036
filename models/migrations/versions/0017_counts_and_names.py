"""Rows read back as not flagged, whether a member count is exact, and what Amplitude calls a cohort."""

import sqlalchemy as sa
from alembic import op

revision = '0017'
down_revision = '0016'
branch_labels = None
depends_on = None


def upgrade() -> None:
    no = sa.false()
    op.add_column('push_batch', sa.Column('unflagged', sa.Boolean(), server_default=no, nullable=False))
    op.add_column(
        'cohort_binding', sa.Column('member_count_rough', sa.Boolean(), server_default=no, nullable=False)
    )
    op.add_column('cohort_binding', sa.Column('cohort_name', sa.String(length=200), nullable=True))


def downgrade() -> None:
    raise NotImplementedError('go back by restoring the copy made before the upgrade')
