"""Runs that sleep until a data extension has a free slot, and when the next run wakes."""

import sqlalchemy as sa
from alembic import op

revision = '0013'
down_revision = '0011'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('sync_run', sa.Column('slot_wanted', sa.String(length=60), nullable=True))
    wanted = sa.text('slot_wanted IS NOT NULL')
    op.create_index('ix_sync_run_slot', 'sync_run', ['slot_wanted'], sqlite_where=wanted, postgresql_where=wanted)
    waits = sa.text("state = 'waiting'")
    op.create_index('ix_sync_run_wake', 'sync_run', ['wake_at'], sqlite_where=waits, postgresql_where=waits)


def downgrade() -> None:
    raise NotImplementedError('go back by restoring the copy made before the upgrade')
