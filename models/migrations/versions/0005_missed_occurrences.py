"""Missed occurrences are counted in a row; when a source's keys were set."""

import sqlalchemy as sa
from alembic import op

import models.types

revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('sync_run', sa.Column('missed', sa.Integer(), server_default='0', nullable=False))
    op.add_column('sync_run', sa.Column('missed_since', models.types.UtcDateTime(timezone=True), nullable=True))
    op.add_column('amplitude_project', sa.Column('keys_set_at', models.types.UtcDateTime(timezone=True), nullable=True))
    # As far as the audit log tells: it knows a source by the name it had.
    op.execute(
        "UPDATE amplitude_project SET keys_set_at = (SELECT max(at) FROM audit_event"
        " WHERE kind = 'source' AND action = 'update' AND audit_event.name = amplitude_project.name"
        " AND at >= amplitude_project.created_at"
        """ AND (CAST(details AS TEXT) LIKE '%"api_key"%' OR CAST(details AS TEXT) LIKE '%"secret_key"%'))"""
    )


def downgrade() -> None:
    raise NotImplementedError('go back by restoring the copy made before the upgrade')
