"""Iterations can be paused and cancelled, evaluations cancelled; phases are entered again."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

ENDS = "'succeeded', 'failed'"
STATES = {
    "iterations": f"'queued', 'running', 'paused', 'cancelled', {ENDS}",
    "evaluations": f"'queued', 'running', 'cancelled', {ENDS}",
}


def upgrade() -> None:
    for table, states in STATES.items():
        op.add_column(table, sa.Column("wish", sa.Text(), nullable=True))
        _set_states(table, states)
    op.create_check_constraint("wish_is_known", "iterations", "wish IN ('pause', 'cancel')")
    op.create_check_constraint(
        "only_what_runs_is_asked", "iterations", "wish IS NULL OR state = 'running'"
    )
    op.create_check_constraint(
        "only_what_runs_is_asked",
        "evaluations",
        "wish IS NULL OR (wish = 'cancel' AND state = 'running')",
    )
    op.add_column(
        "iterations", sa.Column("num_starts", sa.BigInteger(), server_default="0", nullable=False)
    )
    op.add_column(
        "phase_spans", sa.Column("earlier_seconds", sa.Float(), server_default="0", nullable=False)
    )


def downgrade() -> None:
    op.drop_column("phase_spans", "earlier_seconds")
    op.drop_column("iterations", "num_starts")
    for table in STATES:
        op.drop_constraint("only_what_runs_is_asked", table)
        # What was stopped by hand becomes a failure, as which the schema of before knows it.
        op.execute(
            f"UPDATE {table} SET state = 'failed', error = 'it was ' || state"
            " WHERE state IN ('paused', 'cancelled')"
        )
        _set_states(table, f"'queued', 'running', {ENDS}")
        op.drop_column(table, "wish")


def _set_states(table: str, states: str) -> None:
    op.drop_constraint("state_is_known", table)
    op.create_check_constraint("state_is_known", table, f"state IN ({states})")
