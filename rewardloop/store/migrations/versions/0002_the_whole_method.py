"""The whole method: bootstrap, self-instruct, assessments, evaluations."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

PHASES_BEFORE = (
    "waiting",
    "prepare",
    "rollout",
    "pairing",
    "train",
    "swap",
    "done",
)
PHASES = (
    "waiting",
    "train_baseline",
    "swap_baseline",
    "judge_ranked",
    "select_eft",
    "prompt_model",
    "prompts",
    "prepare",
    "rollout",
    "pairing",
    "train",
    "swap",
    "assess",
    "done",
)


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


def _replace_check(table: str, name: str, condition: str, new_name: str | None = None) -> None:
    op.drop_constraint(name, table, type_="check")
    op.create_check_constraint(new_name or name, table, condition)


def upgrade() -> None:
    _change_iterations()
    _change_training_and_pairs()
    # A message is a hint: the reconciler sends again what is dropped here.
    op.execute("DELETE FROM outbox")
    op.drop_column("outbox", "iteration_id")
    op.add_column("outbox", sa.Column("subject_id", sa.Uuid(), nullable=False))
    _create_tables()


def _change_iterations() -> None:
    op.add_column(
        "iterations", sa.Column("kind", sa.Text(), server_default="improve", nullable=False)
    )
    op.add_column("iterations", sa.Column("baseline_version_id", sa.Text(), nullable=True))
    op.add_column("iterations", sa.Column("error_kind", sa.Text(), nullable=True))
    op.add_column(
        "iterations",
        sa.Column(
            "report",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
        ),
    )
    op.create_foreign_key(
        "iterations_baseline_version_id_fkey",
        "iterations",
        "model_versions",
        ["baseline_version_id"],
        ["id"],
    )
    _replace_check(
        "iterations",
        "index_counts_from_one",
        "(kind = 'bootstrap' AND \"index\" = 0) OR (kind = 'improve' AND \"index\" >= 1)",
        "only_the_bootstrap_has_index_zero",
    )
    _replace_check("iterations", "phase_is_known", _one_of("phase", PHASES))
    _replace_check("model_versions", "kind_is_known", _one_of("kind", ("base", "sft", "dpo")))


def _change_training_and_pairs() -> None:
    op.add_column(
        "training_jobs", sa.Column("stage", sa.Text(), server_default="model", nullable=False)
    )
    op.drop_constraint("training_jobs_iteration_id_key", "training_jobs", type_="unique")
    op.create_unique_constraint(
        "training_jobs_iteration_id_stage_key", "training_jobs", ["iteration_id", "stage"]
    )
    op.create_check_constraint(
        "stage_is_known", "training_jobs", _one_of("stage", ("baseline", "model"))
    )
    op.create_unique_constraint("responses_prompt_id_id_key", "responses", ["prompt_id", "id"])
    op.drop_constraint("rejected_answers_this_prompt", "preference_pairs", type_="foreignkey")
    op.create_foreign_key(
        "rejected_answers_this_prompt",
        "preference_pairs",
        "responses",
        ["prompt_id", "rejected_response_id"],
        ["prompt_id", "id"],
    )


def _create_tables() -> None:
    op.create_table(
        "ranked_responses",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("prompt_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("rank", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.CheckConstraint("rank >= 0", name="rank_counts_from_zero"),
        sa.ForeignKeyConstraint(
            ["prompt_id"],
            ["prompts.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("prompt_id", "position"),
    )
    op.create_table(
        "ranked_splits",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("prompt_id", sa.BigInteger(), nullable=False),
        sa.Column("held_out", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["prompt_id"],
            ["prompts.id"],
        ),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["runs.id"],
        ),
        sa.PrimaryKeyConstraint("run_id", "prompt_id"),
    )
    op.create_table(
        "assessments",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("iteration_id", sa.Uuid(), nullable=False),
        sa.Column("version_id", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("metrics", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("mode IN ('free', 'constrained')", name="mode_is_known"),
        sa.CheckConstraint("purpose IN ('eft', 'health')", name="purpose_is_known"),
        sa.ForeignKeyConstraint(
            ["iteration_id"],
            ["iterations.id"],
        ),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["model_versions.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("iteration_id", "version_id", "purpose", "mode"),
    )
    op.create_table(
        "ranked_judgements",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("assessment_id", sa.BigInteger(), nullable=False),
        sa.Column("ranked_response_id", sa.BigInteger(), nullable=False),
        sa.Column("judge_index", sa.BigInteger(), nullable=False),
        sa.Column("raw_text", sa.Text(), nullable=False),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("rubric_version", sa.Text(), nullable=False),
        sa.Column("judge_version", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("(score IS NULL) <> (reason IS NULL)", name="score_or_reason"),
        sa.CheckConstraint("score BETWEEN 0 AND 5", name="score_on_the_scale"),
        sa.ForeignKeyConstraint(
            ["assessment_id"],
            ["assessments.id"],
        ),
        sa.ForeignKeyConstraint(
            ["ranked_response_id"],
            ["ranked_responses.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("assessment_id", "ranked_response_id", "judge_index"),
    )
    op.create_table(
        "eft_examples",
        sa.Column("iteration_id", sa.Uuid(), nullable=False),
        sa.Column("ranked_judgement_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["iteration_id"],
            ["iterations.id"],
        ),
        sa.ForeignKeyConstraint(
            ["ranked_judgement_id"],
            ["ranked_judgements.id"],
        ),
        sa.PrimaryKeyConstraint("iteration_id", "ranked_judgement_id"),
    )
    op.create_table(
        "candidate_prompts",
        sa.Column("iteration_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("prompt_id", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("(prompt_id IS NULL) <> (reason IS NULL)", name="kept_or_reason"),
        sa.ForeignKeyConstraint(
            ["iteration_id"],
            ["iterations.id"],
        ),
        sa.ForeignKeyConstraint(
            ["prompt_id"],
            ["prompts.id"],
        ),
        sa.PrimaryKeyConstraint("iteration_id", "attempt"),
    )
    op.create_table(
        "evaluations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("version_a_id", sa.Text(), nullable=False),
        sa.Column("version_b_id", sa.Text(), nullable=False),
        sa.Column("config", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("num_failures", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(state = 'failed') = (error IS NOT NULL)", name="failed_says_why"),
        sa.CheckConstraint(
            "(state = 'succeeded') = (result IS NOT NULL)", name="success_has_result"
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'succeeded', 'failed')", name="state_is_known"
        ),
        sa.CheckConstraint("version_a_id <> version_b_id", name="two_versions"),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["runs.id"],
        ),
        sa.ForeignKeyConstraint(
            ["version_a_id"],
            ["model_versions.id"],
        ),
        sa.ForeignKeyConstraint(
            ["version_b_id"],
            ["model_versions.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "evaluation_answers",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("version_id", sa.Text(), nullable=False),
        sa.Column("prompt_id", sa.BigInteger(), nullable=False),
        sa.Column("sampling", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("(text IS NULL) <> (reason IS NULL)", name="text_or_reason"),
        sa.ForeignKeyConstraint(
            ["prompt_id"],
            ["prompts.id"],
        ),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["model_versions.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("version_id", "prompt_id", "sampling"),
    )
    op.create_table(
        "comparisons",
        sa.Column("evaluation_id", sa.Uuid(), nullable=False),
        sa.Column("prompt_id", sa.BigInteger(), nullable=False),
        sa.Column("a_first", sa.Boolean(), nullable=False),
        sa.Column("raw_text", sa.Text(), nullable=False),
        sa.Column("preference", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("judge_version", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("preference IN ('first', 'second', 'tie')", name="preference_is_known"),
        sa.CheckConstraint("(preference IS NULL) <> (reason IS NULL)", name="preference_or_reason"),
        sa.ForeignKeyConstraint(
            ["evaluation_id"],
            ["evaluations.id"],
        ),
        sa.ForeignKeyConstraint(
            ["prompt_id"],
            ["prompts.id"],
        ),
        sa.PrimaryKeyConstraint("evaluation_id", "prompt_id", "a_first"),
    )


def downgrade() -> None:
    for table in (
        "comparisons",
        "evaluation_answers",
        "evaluations",
        "candidate_prompts",
        "eft_examples",
        "ranked_judgements",
        "assessments",
        "ranked_splits",
        "ranked_responses",
    ):
        op.drop_table(table)
    op.execute("DELETE FROM outbox")
    op.drop_column("outbox", "subject_id")
    op.add_column("outbox", sa.Column("iteration_id", sa.Uuid(), nullable=False))
    op.create_foreign_key(
        "outbox_iteration_id_fkey", "outbox", "iterations", ["iteration_id"], ["id"]
    )
    op.drop_constraint("rejected_answers_this_prompt", "preference_pairs", type_="foreignkey")
    op.create_foreign_key(
        "rejected_answers_this_prompt",
        "preference_pairs",
        "responses",
        ["iteration_id", "prompt_id", "rejected_response_id"],
        ["iteration_id", "prompt_id", "id"],
    )
    op.drop_constraint("responses_prompt_id_id_key", "responses", type_="unique")
    op.drop_constraint("stage_is_known", "training_jobs", type_="check")
    op.drop_constraint("training_jobs_iteration_id_stage_key", "training_jobs", type_="unique")
    op.create_unique_constraint("training_jobs_iteration_id_key", "training_jobs", ["iteration_id"])
    op.drop_column("training_jobs", "stage")
    _replace_check("model_versions", "kind_is_known", _one_of("kind", ("base", "dpo")))
    _replace_check("iterations", "phase_is_known", _one_of("phase", PHASES_BEFORE))
    _replace_check(
        "iterations",
        "only_the_bootstrap_has_index_zero",
        '"index" >= 1',
        "index_counts_from_one",
    )
    op.drop_column("iterations", "error_kind")
    op.drop_column("iterations", "report")
    op.drop_column("iterations", "baseline_version_id")
    op.drop_column("iterations", "kind")
