"""Notices: what needs a person, and what was told of it; the last bad run of a binding."""

import sqlalchemy as sa
from alembic import op

import models.types

revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')
    instant = models.types.UtcDateTime(timezone=True)
    sqlite = op.get_bind().dialect.name == 'sqlite'

    op.add_column('cohort_binding', sa.Column('bad_run_id', number, nullable=True))
    op.execute(
        "UPDATE cohort_binding SET bad_run_id = (SELECT run.id FROM sync_run AS run"
        " WHERE run.id = (SELECT max(last.id) FROM sync_run AS last WHERE last.binding_id = cohort_binding.id"
        " AND last.finished_at IS NOT NULL AND last.state <> 'skipped') AND run.state IN ('failed', 'partial'))"
    )
    bad, paused = sa.text('bad_run_id IS NOT NULL'), sa.text('paused = 1' if sqlite else 'paused')
    op.create_index('ix_cohort_binding_bad_run', 'cohort_binding', ['bad_run_id'], sqlite_where=bad, postgresql_where=bad)
    op.create_index('ix_cohort_binding_paused', 'cohort_binding', ['id'], sqlite_where=paused, postgresql_where=paused)
    spent = sa.text("kind = 'download'")
    op.create_index('ix_snapshot_download', 'snapshot', ['project_id', 'requested_at'], sqlite_where=spent, postgresql_where=spent)

    op.create_table(
        'notice',
        sa.Column('id', number, nullable=False),
        sa.Column('kind', sa.String(length=20), nullable=False),
        sa.Column('subject', number, nullable=False),
        sa.Column('about', sa.String(length=400), nullable=False),
        sa.Column('code', sa.String(length=40), nullable=False),
        sa.Column('message', sa.Text(), nullable=False),
        sa.Column('remedy', sa.Text(), nullable=False),
        sa.Column('began_at', instant, nullable=False),
        sa.Column('gone_at', instant, nullable=True),
        sa.Column('ended_at', instant, nullable=True),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_notice')),
        sqlite_autoincrement=True,
    )
    open_ones = sa.text('ended_at IS NULL')
    op.create_index('uq_notice_open', 'notice', ['kind', 'subject', 'code'], unique=True, sqlite_where=open_ones, postgresql_where=open_ones)
    op.create_index('ix_notice_ended_at', 'notice', ['ended_at'])
    op.create_table(
        'notice_channel',
        sa.Column('id', number, nullable=False),
        sa.Column('digest', sa.String(length=64), nullable=False),
        sa.Column('name', sa.String(length=300), nullable=False),
        sa.Column('fence', sa.Integer(), nullable=False),
        sa.Column('claimed_until', instant, nullable=True),
        sa.Column('next_at', instant, nullable=True),
        sa.Column('attempts', sa.Integer(), nullable=False),
        sa.Column('failing_since', instant, nullable=True),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_notice_channel')),
        sa.UniqueConstraint('digest', name=op.f('uq_notice_channel_digest')),
        sqlite_autoincrement=True,
    )
    op.create_table(
        'notice_telling',
        sa.Column('notice_id', number, nullable=False),
        sa.Column('channel_id', number, nullable=False),
        sa.Column('fence', sa.Integer(), nullable=False),
        sa.Column('ending', sa.Boolean(), nullable=False),
        sa.Column('told_at', instant, nullable=True),
        sa.Column('reminded_at', instant, nullable=True),
        sa.Column('over_at', instant, nullable=True),
        sa.Column('given_up_at', instant, nullable=True),
        sa.ForeignKeyConstraint(['notice_id'], ['notice.id'], name=op.f('fk_notice_telling_notice_id'), ondelete='CASCADE'),
        sa.ForeignKeyConstraint(['channel_id'], ['notice_channel.id'], name=op.f('fk_notice_telling_channel_id'), ondelete='CASCADE'),
        sa.PrimaryKeyConstraint('notice_id', 'channel_id', name=op.f('pk_notice_telling')),
    )
    not_over = sa.text('over_at IS NULL')
    op.create_index('ix_notice_telling_open', 'notice_telling', ['channel_id', 'fence'], sqlite_where=not_over, postgresql_where=not_over)


def downgrade() -> None:
    raise NotImplementedError('go back by restoring the copy made before the upgrade')
