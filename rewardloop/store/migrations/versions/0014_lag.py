"""A lag: the version that is trained beside the one that answers, and the bound between them."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

ENGINES = "state = 'running' AND (max_lag = 0 OR phase NOT IN ('pairing', 'train'))"
TRAINING = "state = 'running' AND phase = 'train'"
LAG = (
    "CASE WHEN (trains_version_id = base_version_id) THEN 0"
    " WHEN (trains_version_id <> base_version_id) THEN 1 ELSE NULL::integer END"
)
LAGGING_BASE = (
    "CASE WHEN (trains_version_id <> base_version_id) THEN base_version_id ELSE NULL::text END"
)
BEFORE = """
    SELECT i.run_id, i."index" AS iteration, p.prompt_id, p.id AS pair_id,
           q.messages AS prompt, p.chosen_response_id, p.rejected_response_id,
           c.text AS chosen, r.text AS rejected, p.chosen_score, p.rejected_score,
           p.chosen_score - p.rejected_score AS margin{more}
    FROM preference_pairs p
    JOIN iterations i ON i.id = p.iteration_id
    JOIN prompts q ON q.id = p.prompt_id
    JOIN responses c ON c.id = p.chosen_response_id
    JOIN responses r ON r.id = p.rejected_response_id
"""
ANSWER = ["iteration_id", "prompt_id", "id"]
CHOSEN = ["iteration_id", "prompt_id", "chosen_response_id"]


def upgrade() -> None:
    _change_iterations()
    _change_pairs()
    op.execute(f"CREATE OR REPLACE VIEW preference_dataset AS {BEFORE.format(more=', p.lag')}")


def _change_iterations() -> None:
    op.create_unique_constraint(
        "model_versions_id_parent_id_key", "model_versions", ["id", "parent_id"]
    )
    op.add_column("iterations", sa.Column("trains_version_id", sa.Text(), nullable=True))
    op.add_column(
        "iterations", sa.Column("max_lag", sa.BigInteger(), server_default="0", nullable=False)
    )
    op.execute("UPDATE iterations SET trains_version_id = base_version_id")
    for name, kind, computed in (
        ("lag", sa.BigInteger(), LAG),
        ("lagging_base_id", sa.Text(), LAGGING_BASE),
    ):
        op.add_column("iterations", sa.Column(name, kind, sa.Computed(computed, persisted=True)))
    op.create_foreign_key(
        "iterations_trains_version_id_fkey",
        "iterations",
        "model_versions",
        ["trains_version_id"],
        ["id"],
    )
    op.create_foreign_key(
        "a_lag_is_one_version",
        "iterations",
        "model_versions",
        ["trains_version_id", "lagging_base_id"],
        ["id", "parent_id"],
    )
    op.create_check_constraint("max_lag_is_known", "iterations", "max_lag BETWEEN 0 AND 1")
    op.create_check_constraint("lag_within_its_bound", "iterations", "lag <= max_lag")
    op.create_unique_constraint(
        "iterations_id_base_version_id_lag_key", "iterations", ["id", "base_version_id", "lag"]
    )
    op.drop_index("one_running", "iterations")
    _unique_where("one_on_the_engines", "state", ENGINES)
    _unique_where("one_training", "run_id", TRAINING)


def _change_pairs() -> None:
    op.add_column("preference_pairs", sa.Column("weight_version", sa.Text(), nullable=True))
    op.add_column(
        "preference_pairs", sa.Column("lag", sa.BigInteger(), server_default="0", nullable=False)
    )
    op.alter_column("preference_pairs", "lag", server_default=None)  # of those that there are
    op.execute(
        "UPDATE preference_pairs p SET weight_version = r.weight_version FROM responses r"
        " WHERE r.id = p.chosen_response_id"
    )
    op.alter_column("preference_pairs", "weight_version", nullable=False)
    _replace_answer_key([*ANSWER, "weight_version"], [*CHOSEN, "weight_version"])
    op.create_foreign_key(
        "answers_within_the_lag",
        "preference_pairs",
        "iterations",
        ["iteration_id", "weight_version", "lag"],
        ["id", "base_version_id", "lag"],
    )


def _replace_answer_key(answer: list[str], chosen: list[str]) -> None:
    """What a pair's chosen side names its answer by."""
    op.drop_constraint("chosen_answers_this_prompt", "preference_pairs", type_="foreignkey")
    narrow, wide = "responses_iteration_id_prompt_id_id_key", "responses_answer_of_version_key"
    old, new = (narrow, wide) if len(answer) > len(ANSWER) else (wide, narrow)
    op.drop_constraint(old, "responses", type_="unique")
    op.create_unique_constraint(new, "responses", answer)
    op.create_foreign_key(
        "chosen_answers_this_prompt", "preference_pairs", "responses", chosen, answer
    )


def _unique_where(name: str, column: str, where: str) -> None:
    op.create_index(name, "iterations", [column], unique=True, postgresql_where=sa.text(where))


def downgrade() -> None:
    """
    Raises:
        IntegrityError: two iterations run now, of which the older schema allows one.
    """
    op.execute("DROP VIEW preference_dataset")
    op.execute(f"CREATE VIEW preference_dataset AS {BEFORE.format(more='')}")
    op.drop_constraint("answers_within_the_lag", "preference_pairs", type_="foreignkey")
    _replace_answer_key(ANSWER, CHOSEN)
    op.drop_column("preference_pairs", "lag")
    op.drop_column("preference_pairs", "weight_version")
    op.drop_index("one_training", "iterations")
    op.drop_index("one_on_the_engines", "iterations")
    _unique_where("one_running", "state", "state = 'running'")
    op.drop_constraint("iterations_id_base_version_id_lag_key", "iterations", type_="unique")
    op.drop_constraint("lag_within_its_bound", "iterations", type_="check")
    op.drop_constraint("max_lag_is_known", "iterations", type_="check")
    op.drop_constraint("a_lag_is_one_version", "iterations", type_="foreignkey")
    for column in ("lagging_base_id", "lag", "max_lag", "trains_version_id"):
        op.drop_column("iterations", column)
    op.drop_constraint("model_versions_id_parent_id_key", "model_versions", type_="unique")
