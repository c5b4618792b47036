"""Retries, chains, blackouts, dates, and runs past the quota."""

import sqlalchemy as sa
from alembic import op

import models.types

revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Columns alone: SQLite would copy and drop a table to change a constraint, and dropping one that others
    # refer to deletes their rows.
    sqlite = op.get_bind().dialect.name == 'sqlite'
    number = 'INTEGER' if sqlite else 'BIGINT'
    op.add_column('cohort_binding', sa.Column('starts_on', sa.Date(), nullable=True))
    op.add_column('cohort_binding', sa.Column('ends_on', sa.Date(), nullable=True))
    op.add_column('cohort_binding', sa.Column('blackouts', sa.String(length=400), server_default=sa.text("''"), nullable=False))
    op.execute(
        f'ALTER TABLE cohort_binding ADD COLUMN after_id {number}'
        ' CONSTRAINT fk_cohort_binding_after_id REFERENCES cohort_binding (id)'
    )
    op.create_index('ix_cohort_binding_after_id', 'cohort_binding', ['after_id'])

    op.add_column('sync_run', sa.Column('force', sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column('sync_run', sa.Column('retry', sa.Integer(), server_default='0', nullable=False))
    op.add_column('sync_run', sa.Column('retry_of', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), nullable=True))
    op.add_column('sync_run', sa.Column('retry_at', models.types.UtcDateTime(timezone=True), nullable=True))
    op.create_index('uq_sync_run_retry', 'sync_run', ['retry_of', 'retry'], unique=True)
    waits = sa.text('retry_at IS NOT NULL')
    op.create_index('ix_sync_run_retry_at', 'sync_run', ['retry_at'], sqlite_where=waits, postgresql_where=waits)


def downgrade() -> None:
    raise NotImplementedError('go back by restoring the copy made before the upgrade')
