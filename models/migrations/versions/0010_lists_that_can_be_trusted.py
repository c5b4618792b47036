"""Whether a webhook's list can be trusted, its base by download, refused messages, and a secret's predecessor."""

import sqlalchemy as sa
from alembic import op

from models.types import Id, UtcDateTime

revision = '0010'
down_revision = '0009'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('amplitude_project', sa.Column('webhook_old_secret_token', sa.LargeBinary(), nullable=True))
    op.add_column('amplitude_project', sa.Column('webhook_old_secret_until', UtcDateTime(), nullable=True))
    op.add_column('sync_run', sa.Column('reconcile', sa.String(length=10), nullable=True))
    op.add_column('cohort_list', sa.Column('forgotten', sa.Integer(), server_default='0', nullable=False))
    op.add_column('cohort_list', sa.Column('anchored', sa.Boolean(), server_default=sa.true(), nullable=False))
    for name in ('based_at', 'base_snapshot_id', 'refuse_before', 'proven_at'):
        op.add_column('cohort_list', sa.Column(name, Id, nullable=True))
    op.add_column('cohort_list', sa.Column('judged_id', Id, server_default='0', nullable=False))
    op.add_column('cohort_list', sa.Column('doubts', sa.JSON(), server_default=sa.text("'{}'"), nullable=False))
    op.add_column('cohort_list', sa.Column('size', sa.Integer(), nullable=True))
    op.add_column('cohort_list', sa.Column('size_computed_at', UtcDateTime(), nullable=True))
    op.add_column('cohort_list', sa.Column('size_asked_at', UtcDateTime(), nullable=True))
    op.add_column('cohort_list', sa.Column('heard_at', UtcDateTime(), nullable=True))
    op.add_column('cohort_list', sa.Column('pause_seconds', sa.Integer(), nullable=True))
    op.create_index(
        'ix_cohort_binding_webhook',
        'cohort_binding',
        ['project_id', 'cohort_id'],
        sqlite_where=sa.text("feed = 'webhook'"),
        postgresql_where=sa.text("feed = 'webhook'"),
    )
    op.create_table(
        'webhook_refusal',
        sa.Column('id', Id, nullable=False),
        sa.Column('project_id', Id, nullable=False),
        sa.Column('cohort_id', sa.String(length=100), nullable=False),
        sa.Column('message_id', sa.String(length=200), nullable=False),
        sa.Column('code', sa.String(length=40), nullable=False),
        sa.Column('count', sa.Integer(), nullable=False),
        sa.Column('first_at', UtcDateTime(), nullable=False),
        sa.Column('last_at', UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ['project_id'],
            ['amplitude_project.id'],
            name=op.f('fk_webhook_refusal_project_id'),
            ondelete='CASCADE',
        ),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_webhook_refusal')),
        sa.UniqueConstraint(
            'project_id',
            'cohort_id',
            'message_id',
            'code',
            name=op.f('uq_webhook_refusal_project_id_cohort_id_message_id_code'),
        ),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    raise NotImplementedError('go back by restoring the copy made before the upgrade')
