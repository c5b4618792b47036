"""The log's index has every column that is asked for, so that SQLite prefers it to the one of all states."""

import sqlalchemy as sa
from alembic import op

revision = '0018'
down_revision = '0017'
branch_labels = None
depends_on = None


def upgrade() -> None:
    log = sa.text("state = 'acknowledged' AND folded_generation IS NULL")
    op.drop_index('ix_push_batch_log', 'push_batch')
    op.create_index(
        'ix_push_batch_log',
        'push_batch',
        ['binding_id', 'state', 'folded_generation', 'id'],
        sqlite_where=log,
        postgresql_where=log,
    )


def downgrade() -> None:
    raise NotImplementedError('go back by restoring the copy made before the upgrade')
