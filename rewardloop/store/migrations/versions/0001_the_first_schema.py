"""The first schema: tables and public views."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


# The public views; docs/reference/database.md describes them.
VIEWS = {
    "response_scores": """
        SELECT i.run_id, i."index" AS iteration, r.prompt_id, r.id AS response_id,
               r.sample_index, r.text AS response, r.weight_version,
               count(j.id) AS num_judgements, count(j.score) AS num_scored,
               avg(j.score) AS score_mean, stddev_samp(j.score) AS score_stdev
        FROM responses r
        JOIN iterations i ON i.id = r.iteration_id
        LEFT JOIN judgements j ON j.response_id = r.id
        GROUP BY i.id, r.id
    """,
    "preference_dataset": """
        SELECT i.run_id, i."index" AS iteration, p.prompt_id, p.id AS pair_id,
               q.messages AS prompt, p.chosen_response_id, p.rejected_response_id,
               c.text AS chosen, r.text AS rejected, p.chosen_score, p.rejected_score,
               p.chosen_score - p.rejected_score AS margin
        FROM preference_pairs p
        JOIN iterations i ON i.id = p.iteration_id
        JOIN prompts q ON q.id = p.prompt_id
        JOIN responses c ON c.id = p.chosen_response_id
        JOIN responses r ON r.id = p.rejected_response_id
    """,
    "iteration_progress": """
        SELECT i.run_id, i."index" AS iteration, i.state, i.phase,
               t.prompts,
               t.accepted * (u.config #>> '{sampling,num_samples}')::int AS responses_expected,
               s.responses,
               t.accepted * (u.config #>> '{sampling,num_samples}')::int
                   * (u.config #>> '{judging,num_judgements}')::int AS judgements_expected,
               s.judgements,
               (SELECT count(*) FROM preference_pairs p WHERE p.iteration_id = i.id) AS pairs
        FROM iterations i
        JOIN runs u ON u.id = i.run_id
        CROSS JOIN LATERAL (
            SELECT count(*) AS prompts, count(*) FILTER (WHERE state <> 'rejected') AS accepted
            FROM iteration_prompts WHERE iteration_id = i.id
        ) t
        CROSS JOIN LATERAL (
            SELECT count(DISTINCT r.id) AS responses, count(j.id) AS judgements
            FROM responses r LEFT JOIN judgements j ON j.response_id = r.id
            WHERE r.iteration_id = i.id
        ) s
    """,
}


def upgrade() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_sha256", sa.Text(), nullable=False),
        sa.Column("response", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "model_versions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("parent_id", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("manifest", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("kind IN ('base', 'dpo')", name="kind_is_known"),
        sa.ForeignKeyConstraint(
            ["parent_id"],
            ["model_versions.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "prompts",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("messages", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("messages_sha256", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("dataset", "messages_sha256"),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("config", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("config_sha256", sa.Text(), nullable=False),
        sa.Column("software", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("base_version_id", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["base_version_id"],
            ["model_versions.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "serving",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("version_id", sa.Text(), nullable=False),
        sa.Column(
            "since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.CheckConstraint("id = 1", name="only_one_row"),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["model_versions.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "iterations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("index", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column("phase", sa.Text(), server_default="waiting", nullable=False),
        sa.Column("base_version_id", sa.Text(), nullable=True),
        sa.Column("new_version_id", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("num_failures", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(state = 'failed') = (error IS NOT NULL)", name="failed_says_why"),
        sa.CheckConstraint(
            "phase IN ('waiting', 'prepare', 'rollout', 'pairing', 'train', 'swap', 'done')",
            name="phase_is_known",
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'succeeded', 'failed')", name="state_is_known"
        ),
        sa.CheckConstraint('"index" >= 1', name="index_counts_from_one"),
        sa.ForeignKeyConstraint(
            ["base_version_id"],
            ["model_versions.id"],
        ),
        sa.ForeignKeyConstraint(
            ["new_version_id"],
            ["model_versions.id"],
        ),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["runs.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("run_id", "index"),
    )
    op.create_index(
        "one_running",
        "iterations",
        ["state"],
        unique=True,
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("iteration_id", sa.Uuid(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["iteration_id"],
            ["iterations.id"],
        ),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["runs.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "iteration_prompts",
        sa.Column("iteration_id", sa.Uuid(), nullable=False),
        sa.Column("prompt_id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_token", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.CheckConstraint("(state = 'rejected') = (reason IS NOT NULL)", name="rejected_says_why"),
        sa.CheckConstraint(
            "state IN ('pending', 'leased', 'done', 'rejected')", name="state_is_known"
        ),
        sa.ForeignKeyConstraint(
            ["iteration_id"],
            ["iterations.id"],
        ),
        sa.ForeignKeyConstraint(
            ["prompt_id"],
            ["prompts.id"],
        ),
        sa.PrimaryKeyConstraint("iteration_id", "prompt_id"),
    )
    op.create_index(
        "unfinished_prompts", "iteration_prompts", ["iteration_id", "state"], unique=False
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("iteration_id", sa.Uuid(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["iteration_id"],
            ["iterations.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "phase_spans",
        sa.Column("iteration_id", sa.Uuid(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["iteration_id"],
            ["iterations.id"],
        ),
        sa.PrimaryKeyConstraint("iteration_id", "phase"),
    )
    op.create_table(
        "training_jobs",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("iteration_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column("num_attempts", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("num_steps", sa.BigInteger(), nullable=True),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(state = 'failed') = (error IS NOT NULL)", name="failed_says_why"),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'succeeded', 'failed')", name="state_is_known"
        ),
        sa.ForeignKeyConstraint(
            ["iteration_id"],
            ["iterations.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("iteration_id"),
    )
    op.create_table(
        "responses",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("iteration_id", sa.Uuid(), nullable=False),
        sa.Column("prompt_id", sa.BigInteger(), nullable=False),
        sa.Column("sample_index", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("sampling", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("finish_reason", sa.Text(), nullable=False),
        sa.Column("weight_version", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("sample_index >= 0", name="sample_index_counts_from_zero"),
        sa.ForeignKeyConstraint(
            ["iteration_id", "prompt_id"],
            ["iteration_prompts.iteration_id", "iteration_prompts.prompt_id"],
        ),
        sa.ForeignKeyConstraint(
            ["weight_version"],
            ["model_versions.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("iteration_id", "prompt_id", "id"),
        sa.UniqueConstraint("iteration_id", "prompt_id", "sample_index"),
    )
    op.create_table(
        "training_metrics",
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("metrics", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["training_jobs.id"],
        ),
        sa.PrimaryKeyConstraint("job_id", "attempt", "step"),
    )
    op.create_table(
        "judgements",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("response_id", sa.BigInteger(), nullable=False),
        sa.Column("judge_index", sa.BigInteger(), nullable=False),
        sa.Column("raw_text", sa.Text(), nullable=False),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("rubric_version", sa.Text(), nullable=False),
        sa.Column("judge_version", sa.Text(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("(score IS NULL) <> (reason IS NULL)", name="score_or_reason"),
        sa.CheckConstraint("judge_index >= 0", name="judge_index_counts_from_zero"),
        sa.CheckConstraint("score BETWEEN 0 AND 5", name="score_on_the_scale"),
        sa.ForeignKeyConstraint(
            ["response_id"],
            ["responses.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("response_id", "judge_index"),
    )
    op.create_table(
        "preference_pairs",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("iteration_id", sa.Uuid(), nullable=False),
        sa.Column("prompt_id", sa.BigInteger(), nullable=False),
        sa.Column("chosen_response_id", sa.BigInteger(), nullable=False),
        sa.Column("rejected_response_id", sa.BigInteger(), nullable=False),
        sa.Column("chosen_score", sa.Double(), nullable=False),
        sa.Column("rejected_score", sa.Double(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("chosen_score > rejected_score", name="chosen_scored_higher"),
        sa.ForeignKeyConstraint(
            ["iteration_id", "prompt_id", "chosen_response_id"],
            ["responses.iteration_id", "responses.prompt_id", "responses.id"],
            name="chosen_answers_this_prompt",
        ),
        sa.ForeignKeyConstraint(
            ["iteration_id", "prompt_id", "rejected_response_id"],
            ["responses.iteration_id", "responses.prompt_id", "responses.id"],
            name="rejected_answers_this_prompt",
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("iteration_id", "chosen_response_id", "rejected_response_id"),
    )
    for name, query in VIEWS.items():
        op.execute(f"CREATE VIEW {name} AS {query}")


def downgrade() -> None:
    for name in VIEWS:
        op.execute(f"DROP VIEW {name}")
    op.drop_table("preference_pairs")
    op.drop_table("judgements")
    op.drop_table("training_metrics")
    op.drop_table("responses")
    op.drop_table("training_jobs")
    op.drop_table("phase_spans")
    op.drop_table("outbox")
    op.drop_index("unfinished_prompts", table_name="iteration_prompts")
    op.drop_table("iteration_prompts")
    op.drop_table("events")
    op.drop_index(
        "one_running", table_name="iterations", postgresql_where=sa.text("state = 'running'")
    )
    op.drop_table("iterations")
    op.drop_table("serving")
    op.drop_table("runs")
    op.drop_table("prompts")
    op.drop_table("model_versions")
    op.drop_table("idempotency_keys")
