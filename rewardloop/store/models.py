"""The tables. What must never be wrong is a key or a check here.

runs 1--n iterations 1--n iteration_prompts n--1 prompts
iteration_prompts 1--n responses 1--n judgements
iterations 1--n preference_pairs, 1--n training_jobs 1--n training_metrics
prompts 1--n ranked_responses; iterations 1--n assessments 1--n ranked_judgements
iterations 1--n candidate_prompts (self-instruct), 1--n eft_examples
evaluations 1--n comparisons; evaluation_answers belong to a version and a prompt
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

from rewardloop.records import Phase, Preference

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
    __table_args__ = (_one_of("kind", "base", "sft", "dpo"),)


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
    kind: Mapped[str] = mapped_column(server_default="improve")
    index: Mapped[int]
    """Index t makes M_t+1 from M_t and counts from 1; 0 is the bootstrap, M0 to M1."""
    state: Mapped[str] = mapped_column(server_default="queued")
    phase: Mapped[str] = mapped_column(server_default="waiting")
    base_version_id: Mapped[str | None] = mapped_column(ForeignKey("model_versions.id"))
    baseline_version_id: Mapped[str | None] = mapped_column(ForeignKey("model_versions.id"))
    """The SFT baseline that a bootstrap makes on its way."""
    new_version_id: Mapped[str | None] = mapped_column(ForeignKey("model_versions.id"))
    report: Mapped[Json] = mapped_column(server_default="{}")
    """What phases found, by subject: counts, reasons, health."""
    error: Mapped[str | None]
    num_failures: Mapped[int] = mapped_column(server_default="0")
    """Transient failures in a row; too many fail the iteration."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    __table_args__ = (
        UniqueConstraint("run_id", "index"),
        CheckConstraint(
            "(kind = 'bootstrap' AND \"index\" = 0) OR (kind = 'improve' AND \"index\" >= 1)",
            name="only_the_bootstrap_has_index_zero",
        ),
        _one_of("state", "queued", "running", "succeeded", "failed"),
        _one_of("phase", *Phase),
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
    """Both sides answer this prompt, and the chosen one does in this iteration, by composite
    foreign keys. (An anchored rejected side stems from the run's first iteration.)"""

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
    stage: Mapped[str] = mapped_column(server_default="model")
    """`baseline`: a bootstrap's SFT baseline; `model`: the iteration's new version."""
    state: Mapped[str] = mapped_column(server_default="queued")
    num_attempts: Mapped[int] = mapped_column(server_default="0")
    num_steps: Mapped[int | None]
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
    __table_args__ = (
        UniqueConstraint("iteration_id", "stage"),
        _one_of("stage", "baseline", "model"),
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
    subject_id: Mapped[UUID]
    """The iteration or the evaluation that the task is about."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class RankedResponse(Base):
    """A human-ranked response to a prompt."""

    __tablename__ = "ranked_responses"
    id: Mapped[int] = mapped_column(primary_key=True)
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompts.id"))
    position: Mapped[int]
    """Counts from 0, best rank first."""
    rank: Mapped[int]
    """0 is the best; equal ranks are a human tie."""
    text: Mapped[str]
    __table_args__ = (
        UniqueConstraint("prompt_id", "position"),
        CheckConstraint("rank >= 0", name="rank_counts_from_zero"),
    )


class RankedSplit(Base):
    """Which ranked prompts a run learns from, and which it only measures its judges by."""

    __tablename__ = "ranked_splits"
    run_id: Mapped[UUID] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompts.id"), primary_key=True)
    held_out: Mapped[bool]


class Assessment(Base):
    """One version as the judge of ranked responses.

    `eft`: the SFT baseline judges the training part, to make EFT data of it. `health`: a
    version judges the held-out part, and `metrics` holds its agreement with the humans.
    """

    __tablename__ = "assessments"
    id: Mapped[int] = mapped_column(primary_key=True)
    iteration_id: Mapped[UUID] = mapped_column(ForeignKey("iterations.id"))
    version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))
    purpose: Mapped[str]
    mode: Mapped[str]
    metrics: Mapped[Json | None]
    """None until every judgement is there."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    __table_args__ = (
        UniqueConstraint("iteration_id", "version_id", "purpose", "mode"),
        _one_of("purpose", "eft", "health"),
        _one_of("mode", "free", "constrained"),
    )


class RankedJudgement(Base):
    """One settled judgement of a human-ranked response."""

    __tablename__ = "ranked_judgements"
    id: Mapped[int] = mapped_column(primary_key=True)
    assessment_id: Mapped[int] = mapped_column(ForeignKey("assessments.id"))
    ranked_response_id: Mapped[int] = mapped_column(ForeignKey("ranked_responses.id"))
    judge_index: Mapped[int]
    raw_text: Mapped[str]
    score: Mapped[float | None]
    reason: Mapped[str | None]
    rubric_version: Mapped[str]
    judge_version: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    __table_args__ = (
        UniqueConstraint("assessment_id", "ranked_response_id", "judge_index"),
        CheckConstraint("(score IS NULL) <> (reason IS NULL)", name="score_or_reason"),
        CheckConstraint("score BETWEEN 0 AND 5", name="score_on_the_scale"),
    )


class EftExample(Base):
    """A judgement that agreed with the humans and was kept for training."""

    __tablename__ = "eft_examples"
    iteration_id: Mapped[UUID] = mapped_column(ForeignKey("iterations.id"), primary_key=True)
    ranked_judgement_id: Mapped[int] = mapped_column(
        ForeignKey("ranked_judgements.id"), primary_key=True
    )


class CandidatePrompt(Base):
    """What the prompt model wrote: a new prompt, or the reason why it is none."""

    __tablename__ = "candidate_prompts"
    iteration_id: Mapped[UUID] = mapped_column(ForeignKey("iterations.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    prompt_id: Mapped[int | None] = mapped_column(ForeignKey("prompts.id"))
    reason: Mapped[str | None]
    detail: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    __table_args__ = (
        CheckConstraint("(prompt_id IS NULL) <> (reason IS NULL)", name="kept_or_reason"),
    )


class Evaluation(Base):
    """Head to head of two versions, A against B."""

    __tablename__ = "evaluations"
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    run_id: Mapped[UUID | None] = mapped_column(ForeignKey("runs.id"))
    version_a_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))
    version_b_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))
    config: Mapped[Json]
    """The resolved `config.Evaluation`."""
    state: Mapped[str] = mapped_column(server_default="queued")
    result: Mapped[Json | None]
    error: Mapped[str | None]
    num_failures: Mapped[int] = mapped_column(server_default="0")
    """Transient failures in a row; too many fail the evaluation."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
    __table_args__ = (
        _one_of("state", "queued", "running", "succeeded", "failed"),
        CheckConstraint("(state = 'failed') = (error IS NOT NULL)", name="failed_says_why"),
        CheckConstraint("(state = 'succeeded') = (result IS NOT NULL)", name="success_has_result"),
        CheckConstraint("version_a_id <> version_b_id", name="two_versions"),
    )


class EvaluationAnswer(Base):
    """A version's answer to an evaluation prompt; evaluations with one sampling share it."""

    __tablename__ = "evaluation_answers"
    id: Mapped[int] = mapped_column(primary_key=True)
    version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompts.id"))
    sampling: Mapped[Json]
    text: Mapped[str | None]
    reason: Mapped[str | None]
    """Why there is no answer: the prompt was refused."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    __table_args__ = (
        UniqueConstraint("version_id", "prompt_id", "sampling"),
        CheckConstraint("(text IS NULL) <> (reason IS NULL)", name="text_or_reason"),
    )


class Comparison(Base):
    """One pairwise judgement, in one order."""

    __tablename__ = "comparisons"
    evaluation_id: Mapped[UUID] = mapped_column(ForeignKey("evaluations.id"), primary_key=True)
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompts.id"), primary_key=True)
    a_first: Mapped[bool] = mapped_column(primary_key=True)
    """Whether A's answer was shown first."""
    raw_text: Mapped[str]
    preference: Mapped[str | None]
    reason: Mapped[str | None]
    judge_version: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    __table_args__ = (
        _one_of("preference", *Preference),
        CheckConstraint("(preference IS NULL) <> (reason IS NULL)", name="preference_or_reason"),
    )
