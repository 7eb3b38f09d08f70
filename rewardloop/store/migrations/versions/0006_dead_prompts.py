"""An item's failures are counted at the item; one that failed too often is dead."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

NUMBERS = ("num_attempts", "num_lost_leases")
TEXTS = ("last_error", "last_error_kind")
STATES = "state IN ('pending', 'leased', 'done', 'rejected'{more})"


def upgrade() -> None:
    for name in NUMBERS:
        column = sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)
        op.add_column("iteration_prompts", column)
    for name in TEXTS:
        op.add_column("iteration_prompts", sa.Column(name, sa.Text(), nullable=True))
    not_before = sa.Column("not_before", sa.DateTime(timezone=True), nullable=True)
    op.add_column("iteration_prompts", not_before)
    _set_states(", 'dead'")
    op.create_check_constraint(
        "dead_says_why", "iteration_prompts", "state <> 'dead' OR last_error IS NOT NULL"
    )
    op.create_check_constraint(
        "an_error_has_a_kind",
        "iteration_prompts",
        "(last_error IS NULL) = (last_error_kind IS NULL)",
    )
    op.create_index(
        "pending_prompts",
        "iteration_prompts",
        [
            "iteration_id",
            "num_lost_leases",
            sa.text("num_attempts DESC"),
            sa.text("not_before NULLS FIRST"),
            "prompt_id",
        ],
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_table(
        "failed_items",
        sa.Column("subject_id", sa.Uuid(), primary_key=True),
        sa.Column("kind", sa.Text(), primary_key=True),
        sa.Column("item", sa.Text(), primary_key=True),
        sa.Column("num_attempts", sa.BigInteger(), nullable=False),
        sa.Column("is_dead", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=False),
        sa.Column("last_error_kind", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('ranked_response', 'answer', 'comparison')", name="kind_is_known"
        ),
    )
    op.execute(_progress("state NOT IN ('rejected', 'dead')", "AND q.state <> 'dead'"))


def downgrade() -> None:
    """A dead prompt has no other state to go back to than `pending`."""
    op.execute(_progress("state <> 'rejected'", ""))
    op.drop_table("failed_items")
    op.drop_index("pending_prompts", table_name="iteration_prompts")
    op.drop_constraint("an_error_has_a_kind", "iteration_prompts")
    op.drop_constraint("dead_says_why", "iteration_prompts")
    op.execute("UPDATE iteration_prompts SET state = 'pending' WHERE state = 'dead'")
    _set_states("")
    for name in (*NUMBERS, *TEXTS, "not_before"):
        op.drop_column("iteration_prompts", name)


def _set_states(more: str) -> None:
    op.drop_constraint("state_is_known", "iteration_prompts")
    op.create_check_constraint("state_is_known", "iteration_prompts", STATES.format(more=more))


def _progress(accepted: str, of_response: str) -> str:
    """`iteration_progress` as it is from here on: what is expected of prompts that are left in,
    and what is there of them."""
    joined = (
        "JOIN iteration_prompts q ON q.iteration_id = r.iteration_id AND q.prompt_id = r.prompt_id"
        if of_response
        else ""
    )
    return f"""
        CREATE OR REPLACE VIEW iteration_progress AS
        SELECT i.run_id, i."index" AS iteration, i.state, i.phase,
               t.prompts,
               t.accepted * (u.config #>> '{{sampling,num_samples}}')::int AS responses_expected,
               s.responses,
               t.accepted * (u.config #>> '{{sampling,num_samples}}')::int
                   * (u.config #>> '{{judging,num_judgements}}')::int AS judgements_expected,
               s.judgements,
               (SELECT count(*) FROM preference_pairs p WHERE p.iteration_id = i.id) AS pairs
        FROM iterations i
        JOIN runs u ON u.id = i.run_id
        CROSS JOIN LATERAL (
            SELECT count(*) AS prompts, count(*) FILTER (WHERE {accepted}) AS accepted
            FROM iteration_prompts WHERE iteration_id = i.id
        ) t
        CROSS JOIN LATERAL (
            SELECT count(DISTINCT r.id) AS responses, count(j.id) AS judgements
            FROM responses r {joined}
            LEFT JOIN judgements j ON j.response_id = r.id
            WHERE r.iteration_id = i.id {of_response}
        ) s
    """
