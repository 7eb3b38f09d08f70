"""Prompts, what is sampled and judged for them, and the pairs and trainings made of it."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from rewardloop.records import JobState, PromptState, Stage, StopWish
from rewardloop.store.models.base import Base, Json, MaybeJson, one_of


class Prompt(Base):
    __tablename__ = "prompts"
    id: Mapped[int] = mapped_column(primary_key=True)
    dataset: Mapped[str]
    messages: Mapped[list[Json]]
    messages_sha256: Mapped[str]
    """Of the turns in Unicode's composed form and without outer blanks."""
    question_sha256: Mapped[str]
    """Of the last turn, besides without letter case and with single blanks: what overlap with
    evaluation is found by."""
    reference: Mapped[str | None]
    source: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    __table_args__ = (
        UniqueConstraint("dataset", "messages_sha256"),
        Index("prompts_by_question", "question_sha256"),
    )


class IterationPrompt(Base):
    """A prompt's turn in an iteration, and who works on it until when."""

    __tablename__ = "iteration_prompts"
    iteration_id: Mapped[UUID] = mapped_column(ForeignKey("iterations.id"), primary_key=True)
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompts.id"), primary_key=True)
    state: Mapped[str] = mapped_column(server_default=PromptState.PENDING)
    lease_owner: Mapped[str | None]
    lease_token: Mapped[int] = mapped_column(server_default="0")
    """Fencing token: grows with each lease; a write under an old one changes nothing."""
    lease_expires_at: Mapped[datetime | None]
    reason: Mapped[str | None]
    """Why the prompt was rejected."""
    num_attempts: Mapped[int] = mapped_column(server_default="0")
    """Failed ones that were the prompt's own."""
    num_lost_leases: Mapped[int] = mapped_column(server_default="0")
    """Leases that ran out or were taken back since their task had ended."""
    not_before: Mapped[datetime | None]
    """When the next attempt may begin."""
    last_error: Mapped[str | None]
    last_error_kind: Mapped[str | None]
    """Its stable name, as in problem details."""
    __table_args__ = (
        one_of("state", *PromptState),
        CheckConstraint("(state = 'rejected') = (reason IS NOT NULL)", name="rejected_says_why"),
        CheckConstraint("state <> 'dead' OR last_error IS NOT NULL", name="dead_says_why"),
        CheckConstraint(
            "(last_error IS NULL) = (last_error_kind IS NULL)", name="an_error_has_a_kind"
        ),
        Index("unfinished_prompts", "iteration_id", "state"),
        # In the order in which they are leased.
        Index(
            "pending_prompts",
            "iteration_id",
            "num_lost_leases",
            text("num_attempts DESC"),
            text("not_before NULLS FIRST"),
            "prompt_id",
            postgresql_where=text("state = 'pending'"),
        ),
        # Expired leases are looked for every few seconds, in prompts of all times.
        Index("leased_prompts", "lease_expires_at", postgresql_where=text("state = 'leased'")),
    )


class Response(Base):
    __tablename__ = "responses"
    id: Mapped[int] = mapped_column(primary_key=True)
    iteration_id: Mapped[UUID]
    prompt_id: Mapped[int]
    sample_index: Mapped[int]
    text: Mapped[str]
    sampling: Mapped[Json]
    prompt_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    finish_reason: Mapped[str]
    weight_version: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    __table_args__ = (
        UniqueConstraint("iteration_id", "prompt_id", "sample_index"),
        UniqueConstraint("iteration_id", "prompt_id", "id", "weight_version"),
        UniqueConstraint("prompt_id", "id"),
        ForeignKeyConstraint(
            ["iteration_id", "prompt_id"],
            ["iteration_prompts.iteration_id", "iteration_prompts.prompt_id"],
        ),
        CheckConstraint("sample_index >= 0", name="sample_index_counts_from_zero"),
    )


class Judgement(Base):
    """One settled judgement attempt: a score, or the reason why there is none."""

    __tablename__ = "judgements"
    id: Mapped[int] = mapped_column(primary_key=True)
    response_id: Mapped[int] = mapped_column(ForeignKey("responses.id"))
    judge_index: Mapped[int]
    raw_text: Mapped[str]
    score: Mapped[float | None]
    reason: Mapped[str | None]
    mode: Mapped[str]
    rubric_version: Mapped[str]
    judge_version: Mapped[str]
    nonce: Mapped[str | None]
    """What the score had to name; None where the rubric asks for none."""
    unscored_before: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default="{}")
    """Why what was written before, for this judgement, carries no score."""
    distribution: Mapped[Json | None] = mapped_column(MaybeJson)
    """By expectation: the probability of each number of points, "0" to "5"."""
    prompt_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    __table_args__ = (
        UniqueConstraint("response_id", "judge_index"),
        CheckConstraint("(score IS NULL) <> (reason IS NULL)", name="score_or_reason"),
        CheckConstraint("score BETWEEN 0 AND 5", name="score_on_the_scale"),
        CheckConstraint("judge_index >= 0", name="judge_index_counts_from_zero"),
    )


class PreferencePairRow(Base):
    """Both sides answer this prompt, and the chosen one does in this iteration and is its base
    version's, by composite foreign keys. (An anchored rejected side stems from the run's first
    iteration.) So no pair's answers are older than its iteration may lag."""

    __tablename__ = "preference_pairs"
    id: Mapped[int] = mapped_column(primary_key=True)
    iteration_id: Mapped[UUID]
    prompt_id: Mapped[int]
    chosen_response_id: Mapped[int]
    rejected_response_id: Mapped[int]
    chosen_score: Mapped[float]
    rejected_score: Mapped[float]
    weight_version: Mapped[str]
    """The version that wrote the chosen side."""
    lag: Mapped[int]
    """How many versions older that is than the one that is trained on the pair."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    __table_args__ = (
        UniqueConstraint("iteration_id", "chosen_response_id", "rejected_response_id"),
        ForeignKeyConstraint(
            ["iteration_id", "prompt_id", "chosen_response_id", "weight_version"],
            [
                "responses.iteration_id",
                "responses.prompt_id",
                "responses.id",
                "responses.weight_version",
            ],
            name="chosen_answers_this_prompt",
        ),
        ForeignKeyConstraint(
            ["iteration_id", "weight_version", "lag"],
            ["iterations.id", "iterations.base_version_id", "iterations.lag"],
            name="answers_within_the_lag",
        ),
        ForeignKeyConstraint(
            ["prompt_id", "rejected_response_id"],
            ["responses.prompt_id", "responses.id"],
            name="rejected_answers_this_prompt",
        ),
        CheckConstraint("chosen_score > rejected_score", name="chosen_scored_higher"),
    )


class TrainingJob(Base):
    __tablename__ = "training_jobs"
    id: Mapped[int] = mapped_column(primary_key=True)
    iteration_id: Mapped[UUID] = mapped_column(ForeignKey("iterations.id"))
    stage: Mapped[str] = mapped_column(server_default=Stage.MODEL)
    """`baseline`: a bootstrap's SFT baseline; `model`: the iteration's new version."""
    state: Mapped[str] = mapped_column(server_default=JobState.QUEUED)
    num_attempts: Mapped[int] = mapped_column(server_default="0")
    num_steps: Mapped[int | None]
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    stop_wanted: Mapped[str | None]
    """How it was asked to stop; a trainer takes no job that is to stop."""
    error: Mapped[str | None]
    error_kind: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
    __table_args__ = (
        UniqueConstraint("iteration_id", "stage"),
        one_of("stage", *Stage),
        one_of("state", *JobState),
        one_of("stop_wanted", *StopWish),
        CheckConstraint("(state = 'failed') = (error IS NOT NULL)", name="failed_says_why"),
    )


class TrainingMetric(Base):
    """What TRL logged at one optimizer step of one attempt."""

    __tablename__ = "training_metrics"
    job_id: Mapped[int] = mapped_column(ForeignKey("training_jobs.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    metrics: Mapped[Json]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
