"""What is known of a list's base: the failed sync that it overtook, and the last sync that was heard before it."""

import sqlalchemy as sa
from alembic import op

import models.types

revision = '0015'
down_revision = '0014'
branch_labels = None
depends_on = None


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')
    instant = models.types.UtcDateTime(timezone=True)
    op.add_column('cohort_list', sa.Column('anchored_after', number, nullable=True))
    for name in ('sync_failed_at', 'overtaken_failure_at'):
        op.add_column('cohort_list', sa.Column(name, instant, nullable=True))


def downgrade() -> None:
    raise NotImplementedError('go back by restoring the copy made before the upgrade')
