"""Model versions, runs, iterations, and what keeps them moving."""

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import (
    CheckConstraint,
    Computed,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from rewardloop.records import IterationKind, IterationState, Phase, StopWish
from rewardloop.store.models.base import Base, Json, one_of


class ModelVersion(Base):
    """A published checkpoint. `manifest` holds sha256 and size of each file."""

    __tablename__ = "model_versions"
    id: Mapped[str] = mapped_column(primary_key=True)
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("model_versions.id"))
    base_id: Mapped[str | None] = mapped_column(ForeignKey("model_versions.id"))
    """The version of full weights that an adapter stands on; null for full weights."""
    kind: Mapped[str]
    manifest: Mapped[Json]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    __table_args__ = (one_of("kind", "base", "sft", "dpo"), UniqueConstraint("id", "parent_id"))


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


# As Postgres writes them, so that the migration and the models can be compared.
_LAG = (
    "CASE WHEN (trains_version_id = base_version_id) THEN 0"
    " WHEN (trains_version_id <> base_version_id) THEN 1 ELSE NULL::integer END"
)
_LAGGING_BASE = (
    "CASE WHEN (trains_version_id <> base_version_id) THEN base_version_id ELSE NULL::text END"
)


class Iteration(Base):
    __tablename__ = "iterations"
    __mapper_args__ = {"eager_defaults": True}  # noqa: RUF012 - as SQLAlchemy has it
    """What Postgres computes is read with each write; asyncio allows no reading later."""
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    run_id: Mapped[UUID] = mapped_column(ForeignKey("runs.id"))
    kind: Mapped[str] = mapped_column(server_default=IterationKind.IMPROVE)
    index: Mapped[int]
    """Index t makes M_t+1 from M_t and counts from 1; 0 is the bootstrap, M0 to M1."""
    state: Mapped[str] = mapped_column(server_default=IterationState.QUEUED)
    phase: Mapped[str] = mapped_column(server_default=Phase.WAITING)
    wish: Mapped[str | None]
    """What a running iteration was asked for and has not come to yet."""
    num_starts: Mapped[int] = mapped_column(server_default="0")
    """How often it was given the engines; a task of an earlier start stores nothing."""
    base_version_id: Mapped[str | None] = mapped_column(ForeignKey("model_versions.id"))
    """The version that answers and judges."""
    trains_version_id: Mapped[str | None] = mapped_column(ForeignKey("model_versions.id"))
    """The version that the new one is trained from; None while that one is still made."""
    max_lag: Mapped[int] = mapped_column(server_default="0")
    """How many versions `base_version_id` may be older than `trains_version_id`."""
    lag: Mapped[int | None] = mapped_column(Computed(_LAG, persisted=True))
    """How many it is; None until both are known."""
    lagging_base_id: Mapped[str | None] = mapped_column(Computed(_LAGGING_BASE, persisted=True))
    """`base_version_id` where it lags: the parent of what is trained, by a foreign key."""
    baseline_version_id: Mapped[str | None] = mapped_column(ForeignKey("model_versions.id"))
    """The SFT baseline that a bootstrap makes on its way."""
    new_version_id: Mapped[str | None] = mapped_column(ForeignKey("model_versions.id"))
    report: Mapped[Json] = mapped_column(server_default="{}")
    """What phases found, by subject: counts, reasons, health."""
    error: Mapped[str | None]
    error_kind: Mapped[str | None]
    """The error's stable name, as in problem details; of the first one that failed."""
    failing_since: Mapped[datetime | None]
    """When the first of its failures in a row was; None while it goes on."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    __table_args__ = (
        UniqueConstraint("run_id", "index"),
        CheckConstraint(
            "(kind = 'bootstrap' AND \"index\" = 0) OR (kind = 'improve' AND \"index\" >= 1)",
            name="only_the_bootstrap_has_index_zero",
        ),
        one_of("state", *IterationState),
        one_of("phase", *Phase),
        one_of("wish", *StopWish),
        CheckConstraint("wish IS NULL OR state = 'running'", name="only_what_runs_is_asked"),
        CheckConstraint("(state = 'failed') = (error IS NOT NULL)", name="failed_says_why"),
        CheckConstraint("max_lag BETWEEN 0 AND 1", name="max_lag_is_known"),
        CheckConstraint("lag <= max_lag", name="lag_within_its_bound"),
        UniqueConstraint("id", "base_version_id", "lag"),
        ForeignKeyConstraint(
            ["trains_version_id", "lagging_base_id"],
            ["model_versions.id", "model_versions.parent_id"],
            name="a_lag_is_one_version",
        ),
        # The replicas serve one version at a time, so one iteration has them at a time. One that
        # may lag leaves them to others while it trains.
        Index(
            "one_on_the_engines",
            "state",
            unique=True,
            postgresql_where=text(
                "state = 'running' AND (max_lag = 0 OR phase NOT IN ('pairing', 'train'))"
            ),
        ),
        Index(
            "one_training",
            "run_id",
            unique=True,
            postgresql_where=text("state = 'running' AND phase = 'train'"),
        ),
    )


class PhaseSpan(Base):
    """When an iteration entered and left a phase, the last time that it did."""

    __tablename__ = "phase_spans"
    iteration_id: Mapped[UUID] = mapped_column(ForeignKey("iterations.id"), primary_key=True)
    phase: Mapped[str] = mapped_column(primary_key=True)
    started_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    ended_at: Mapped[datetime | None]
    earlier_seconds: Mapped[float] = mapped_column(server_default="0")
    """Spent in the phase before: a pause or a failure ends a span, and it is entered again."""


class IdempotencyKey(Base):
    """The ids that a repeated POST answers with."""

    __tablename__ = "idempotency_keys"
    key: Mapped[str] = mapped_column(primary_key=True)
    request_sha256: Mapped[str]
    response: Mapped[Json]
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
