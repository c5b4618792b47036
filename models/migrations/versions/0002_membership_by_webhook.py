"""Membership by webhook."""

import sqlalchemy as sa
from alembic import op

import models.types

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')


def upgrade() -> None:
    with op.batch_alter_table('amplitude_project', schema=None) as batch_op:
        batch_op.add_column(sa.Column('webhook_secret_token', sa.LargeBinary(), nullable=True))
        batch_op.add_column(sa.Column('webhook_secret_at', models.types.UtcDateTime(timezone=True), nullable=True))
    with op.batch_alter_table('cohort_binding', schema=None) as batch_op:
        batch_op.add_column(sa.Column('feed', sa.String(length=10), server_default='download', nullable=False))
    with op.batch_alter_table('snapshot', schema=None) as batch_op:
        batch_op.add_column(sa.Column('upto', _ID, nullable=True))

    op.create_table('cohort_list',
    sa.Column('id', _ID, nullable=False),
    sa.Column('project_id', _ID, nullable=False),
    sa.Column('cohort_id', sa.String(length=100), nullable=False),
    sa.Column('property', sa.String(length=400), nullable=False),
    sa.Column('complete', sa.Boolean(), nullable=False),
    sa.Column('generation', sa.Integer(), nullable=False),
    sa.Column('members', sa.Integer(), nullable=False),
    sa.Column('blank', sa.Integer(), nullable=False),
    sa.Column('forgotten_through', _ID, nullable=True),
    sa.Column('created_at', models.types.UtcDateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['project_id'], ['amplitude_project.id'], name=op.f('fk_cohort_list_project_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_cohort_list')),
    sa.UniqueConstraint('project_id', 'cohort_id', 'property', name=op.f('uq_cohort_list_project_id_cohort_id_property')),
    sqlite_autoincrement=True
    )
    op.create_table('cohort_list_part',
    sa.Column('list_id', _ID, nullable=False),
    sa.Column('generation', sa.Integer(), nullable=False),
    sa.Column('part', sa.Integer(), nullable=False),
    sa.Column('n', sa.Integer(), nullable=False),
    sa.Column('keys', sa.LargeBinary(), nullable=False),
    sa.ForeignKeyConstraint(['list_id'], ['cohort_list.id'], name=op.f('fk_cohort_list_part_list_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('list_id', 'generation', 'part', name=op.f('pk_cohort_list_part'))
    )
    op.create_table('webhook_message',
    sa.Column('id', _ID, nullable=False),
    sa.Column('list_id', _ID, nullable=False),
    sa.Column('message_id', sa.String(length=200), nullable=False),
    sa.Column('in_cohort', sa.Boolean(), nullable=False),
    sa.Column('computed_time', _ID, nullable=False),
    sa.Column('received_at', models.types.UtcDateTime(timezone=True), nullable=False),
    sa.Column('n', sa.Integer(), nullable=False),
    sa.Column('blank', sa.Integer(), nullable=False),
    sa.Column('keys', sa.LargeBinary(), nullable=False),
    sa.Column('folded', sa.Boolean(), nullable=False),
    sa.ForeignKeyConstraint(['list_id'], ['cohort_list.id'], name=op.f('fk_webhook_message_list_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_webhook_message')),
    sa.UniqueConstraint('list_id', 'message_id', name=op.f('uq_webhook_message_list_id_message_id')),
    sqlite_autoincrement=True
    )
    with op.batch_alter_table('webhook_message', schema=None) as batch_op:
        batch_op.create_index('ix_webhook_message_order', ['list_id', 'computed_time'], unique=False)


def downgrade() -> None:
    op.drop_table('webhook_message')
    op.drop_table('cohort_list_part')
    op.drop_table('cohort_list')
    with op.batch_alter_table('snapshot', schema=None) as batch_op:
        batch_op.drop_column('upto')
    with op.batch_alter_table('cohort_binding', schema=None) as batch_op:
        batch_op.drop_column('feed')
    with op.batch_alter_table('amplitude_project', schema=None) as batch_op:
        batch_op.drop_column('webhook_secret_at')
        batch_op.drop_column('webhook_secret_token')
