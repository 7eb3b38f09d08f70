"""Failures are bounded by time, leases are found by an index, comparisons name their rubric."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

FAILING = ("iterations", "evaluations")


def upgrade() -> None:
    for table in FAILING:
        op.drop_column(table, "num_failures")
        op.add_column(table, sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True))
    op.add_column("comparisons", sa.Column("rubric_version", sa.Text(), nullable=True))
    op.create_index(
        "leased_prompts",
        "iteration_prompts",
        ["lease_expires_at"],
        postgresql_where=sa.text("state = 'leased'"),
    )


def downgrade() -> None:
    op.drop_index("leased_prompts", table_name="iteration_prompts")
    op.drop_column("comparisons", "rubric_version")
    for table in FAILING:
        op.drop_column(table, "failing_since")
        op.add_column(
            table, sa.Column("num_failures", sa.BigInteger(), server_default="0", nullable=False)
        )
