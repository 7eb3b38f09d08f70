"""The tables. What must never be wrong is a key or a check here.

runs 1--n iterations 1--n iteration_prompts n--1 prompts
iteration_prompts 1--n responses 1--n judgements
iterations 1--n preference_pairs, 1--1 training_jobs 1--n training_metrics
model_versions: parent -> child; serving names the one that is served
"""

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID, uuid4

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Json = dict[str, Any]


class Base(DeclarativeBase):
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text,
        int: BigInteger,
        Json: JSONB,
        list[Json]: JSONB,
        datetime: DateTime(timezone=True),
    }


def _one_of(column: str, *values: str) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_is_known")


class ModelVersion(Base):
    """A published checkpoint. `manifest` holds sha256 and size of each file."""

    __tablename__ = "model_versions"
    id: Mapped[str] = mapped_column(primary_key=True)
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("model_versions.id"))
    kind: Mapped[str]
    manifest: Mapped[Json]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    __table_args__ = (_one_of("kind", "base", "dpo"),)


class Serving(Base):
    """The single row that says which version the replicas serve."""

    __tablename__ = "serving"
    id: Mapped[int] = mapped_column(primary_key=True, default=1)
    version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))
    since: Mapped[datetime] = mapped_column(server_default=func.now())
    __table_args__ = (CheckConstraint("id = 1", name="only_one_row"),)


class Run(Base):
    __tablename__ = "runs"
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str]
    config: Mapped[Json]
    """The resolved RunConfig."""
    config_sha256: Mapped[str]
    software: Mapped[Json]
    """Versions of the packages that this run was created with."""
    base_version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Iteration(Base):
    __tablename__ = "iterations"
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    run_id: Mapped[UUID] = mapped_column(ForeignKey("runs.id"))
    index: Mapped[int]
    """Counts from 1 within the run."""
    state: Mapped[str] = mapped_column(server_default="queued")
    phase: Mapped[str] = mapped_column(server_default="waiting")
    base_version_id: Mapped[str | None] = mapped_column(ForeignKey("model_versions.id"))
    new_version_id: Mapped[str | None] = mapped_column(ForeignKey("model_versions.id"))
    error: Mapped[str | None]
    num_failures: Mapped[int] = mapped_column(server_default="0")
    """Transient failures in a row; too many fail the iteration."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    __table_args__ = (
        UniqueConstraint("run_id", "index"),
        CheckConstraint('"index" >= 1', name="index_counts_from_one"),
        _one_of("state", "queued", "running", "succeeded", "failed"),
        _one_of("phase", "waiting", "prepare", "rollout", "pairing", "train", "swap", "done"),
        CheckConstraint("(state = 'failed') = (error IS NOT NULL)", name="failed_says_why"),
        # The replicas serve one version at a time, so one iteration runs at a time.
        Index("one_running", "state", unique=True, postgresql_where=text("state = 'running'")),
    )


class PhaseSpan(Base):
    """When an iteration entered and left a phase."""

    __tablename__ = "phase_spans"
    iteration_id: Mapped[UUID] = mapped_column(ForeignKey("iterations.id"), primary_key=True)
    phase: Mapped[str] = mapped_column(primary_key=True)
    started_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    ended_at: Mapped[datetime | None]


class IdempotencyKey(Base):
    """The ids that a repeated POST answers with."""

    __tablename__ = "idempotency_keys"
    key: Mapped[str] = mapped_column(primary_key=True)
    request_sha256: Mapped[str]
    response: Mapped[Json]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Prompt(Base):
    __tablename__ = "prompts"
    id: Mapped[int] = mapped_column(primary_key=True)
    dataset: Mapped[str]
    messages: Mapped[list[Json]]
    messages_sha256: Mapped[str]
    reference: Mapped[str | None]
    source: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    __table_args__ = (UniqueConstraint("dataset", "messages_sha256"),)


class IterationPrompt(Base):
    """A prompt's turn in an iteration, and who works on it until when."""

    __tablename__ = "iteration_prompts"
    iteration_id: Mapped[UUID] = mapped_column(ForeignKey("iterations.id"), primary_key=True)
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompts.id"), primary_key=True)
    state: Mapped[str] = mapped_column(server_default="pending")
    lease_owner: Mapped[str | None]
    lease_token: Mapped[int] = mapped_column(server_default="0")
    """Fencing token: grows with each lease; a write under an old one changes nothing."""
    lease_expires_at: Mapped[datetime | None]
    reason: Mapped[str | None]
    """Why the prompt was rejected."""
    __table_args__ = (
        _one_of("state", "pending", "leased", "done", "rejected"),
        CheckConstraint("(state = 'rejected') = (reason IS NOT NULL)", name="rejected_says_why"),
        Index("unfinished_prompts", "iteration_id", "state"),
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
        UniqueConstraint("iteration_id", "prompt_id", "id"),
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
    """Both sides answer this prompt in this iteration, by composite foreign keys."""

    __tablename__ = "preference_pairs"
    id: Mapped[int] = mapped_column(primary_key=True)
    iteration_id: Mapped[UUID]
    prompt_id: Mapped[int]
    chosen_response_id: Mapped[int]
    rejected_response_id: Mapped[int]
    chosen_score: Mapped[float]
    rejected_score: Mapped[float]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    __table_args__ = (
        UniqueConstraint("iteration_id", "chosen_response_id", "rejected_response_id"),
        ForeignKeyConstraint(
            ["iteration_id", "prompt_id", "chosen_response_id"],
            ["responses.iteration_id", "responses.prompt_id", "responses.id"],
            name="chosen_answers_this_prompt",
        ),
        ForeignKeyConstraint(
            ["iteration_id", "prompt_id", "rejected_response_id"],
            ["responses.iteration_id", "responses.prompt_id", "responses.id"],
            name="rejected_answers_this_prompt",
        ),
        CheckConstraint("chosen_score > rejected_score", name="chosen_scored_higher"),
    )


class TrainingJob(Base):
    __tablename__ = "training_jobs"
    id: Mapped[int] = mapped_column(primary_key=True)
    iteration_id: Mapped[UUID] = mapped_column(ForeignKey("iterations.id"), unique=True)
    state: Mapped[str] = mapped_column(server_default="queued")
    num_attempts: Mapped[int] = mapped_column(server_default="0")
    num_steps: Mapped[int | None]
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
    __table_args__ = (
        _one_of("state", "queued", "running", "succeeded", "failed"),
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


class Event(Base):
    """What happened, for people: state changes, rejected prompts, failures."""

    __tablename__ = "events"
    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[UUID | None] = mapped_column(ForeignKey("runs.id"))
    iteration_id: Mapped[UUID | None] = mapped_column(ForeignKey("iterations.id"))
    kind: Mapped[str]
    payload: Mapped[Json]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class OutboxMessage(Base):
    """A Celery message that a committed state change calls for."""

    __tablename__ = "outbox"
    id: Mapped[int] = mapped_column(primary_key=True)
    task: Mapped[str]
    iteration_id: Mapped[UUID] = mapped_column(ForeignKey("iterations.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
