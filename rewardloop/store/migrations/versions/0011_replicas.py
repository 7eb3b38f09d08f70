"""Generator replicas register themselves."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    now = sa.text("now()")
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "replicas",
        sa.Column("control_url", sa.Text(), nullable=False),
        sa.Column("data_url", sa.Text(), nullable=False),
        sa.Column("instance", sa.Uuid(), nullable=False),
        sa.Column("version_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("joined_at", moment, server_default=now, nullable=False),
        sa.Column("heartbeat_at", moment, server_default=now, nullable=False),
        sa.PrimaryKeyConstraint("control_url"),
        sa.CheckConstraint(
            "state IN ('ready', 'swapping', 'leaving', 'broken')", name="state_is_known"
        ),
    )


def downgrade() -> None:
    op.drop_table("replicas")
