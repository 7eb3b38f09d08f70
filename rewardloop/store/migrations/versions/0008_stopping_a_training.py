"""A training can be asked to stop, and says by which kind of error it failed."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

BEFORE = ("queued", "running", "succeeded", "failed")
STATES = ("queued", "running", "paused", "cancelled", "succeeded", "failed")


def upgrade() -> None:
    op.add_column("training_jobs", sa.Column("stop_wanted", sa.Text(), nullable=True))
    op.add_column("training_jobs", sa.Column("error_kind", sa.Text(), nullable=True))
    op.create_check_constraint(
        "stop_wanted_is_known", "training_jobs", "stop_wanted IN ('pause', 'cancel')"
    )
    _replace_states(STATES)


def downgrade() -> None:
    op.execute("UPDATE training_jobs SET state = 'queued' WHERE state IN ('paused', 'cancelled')")
    _replace_states(BEFORE)
    op.drop_constraint("stop_wanted_is_known", "training_jobs", type_="check")
    op.drop_column("training_jobs", "error_kind")
    op.drop_column("training_jobs", "stop_wanted")


def _replace_states(states: tuple[str, ...]) -> None:
    op.drop_constraint("state_is_known", "training_jobs", type_="check")
    listed = ", ".join(repr(state) for state in states)
    op.create_check_constraint("state_is_known", "training_jobs", f"state IN ({listed})")
