"""A ranked answer that humans called bad is not imitated, even if it is the best."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "ranked_responses",
        sa.Column("imitate", sa.Boolean(), server_default="true", nullable=False),
    )


def downgrade() -> None:
    op.drop_column("ranked_responses", "imitate")
