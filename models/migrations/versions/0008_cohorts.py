"""Indexes of what a run reads: a binding's log without what is folded, and who has used a download, a run's rejections."""

import sqlalchemy as sa
from alembic import op

revision = '0008'
down_revision = '0007'
branch_labels = None
depends_on = None


def upgrade() -> None:
    log = sa.text("state = 'acknowledged' AND folded_generation IS NULL")
    op.create_index('ix_push_batch_log', 'push_batch', ['binding_id', 'id'], sqlite_where=log, postgresql_where=log)
    used = sa.text('snapshot_id IS NOT NULL')
    op.create_index(
        'ix_sync_run_snapshot', 'sync_run', ['snapshot_id', 'binding_id'], sqlite_where=used, postgresql_where=used
    )
    op.create_index('ix_rejection_run', 'rejection', ['run_id'])


def downgrade() -> None:
    raise NotImplementedError('go back by restoring the copy made before the upgrade')
