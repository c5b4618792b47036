"""Guards of growth, first syncs, blank and duplicate rows and of what is usual; held runs expire."""

from datetime import datetime, timedelta, timezone

import sqlalchemy as sa
from alembic import op

import models.types

revision = '0007'
down_revision = '0006'
branch_labels = None
depends_on = None

GUARDS = ('max_growth_percent', 'max_first_sync', 'max_blank_percent', 'max_duplicate_percent', 'max_deviation_percent')


def upgrade() -> None:
    for name in GUARDS:
        op.add_column('cohort_binding', sa.Column(name, sa.Integer(), nullable=True))
    instant = models.types.UtcDateTime(timezone=True)
    op.add_column('sync_run', sa.Column('held_until', instant, nullable=True))
    op.add_column('sync_run', sa.Column('held_facts', sa.JSON(), nullable=True))
    run = sa.table('sync_run', sa.column('state', sa.String()), sa.column('held_until', instant))
    week = datetime.now(timezone.utc) + timedelta(days=7)
    op.execute(run.update().where(run.c.state == 'held').values(held_until=week))


def downgrade() -> None:
    raise NotImplementedError('go back by restoring the copy made before the upgrade')
