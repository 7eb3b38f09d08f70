"""Training jobs, leased by the trainer, and the metrics that TRL logs.

Whoever wants a training to stop writes the wish into its row (`ask_to_stop`); the trainer that
holds the job sees it and ends the job as `paused` or `cancelled` (`end_stopped`). A job that
no trainer holds is stopped by the wish itself.

A trainer holds its job by a lease, and by a session lock under the lease owner's name, if that
begins with LOCKED: the job of a trainer that died is free as soon as Postgres frees the lock.
"""

import math
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, case, func, literal, not_, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop import errors
from rewardloop.errors import RewardloopError, TrainingFailed
from rewardloop.records import JobState, Stage, StopWish
from rewardloop.store import iterations, outbox, sessions
from rewardloop.store.models import Iteration, TrainingJob, TrainingMetric

LOCKED = "session:"


async def add(session: AsyncSession, iteration_id: UUID, stage: Stage) -> None:
    """Queue a training of the iteration; twice changes nothing."""
    await session.execute(
        insert(TrainingJob).values(iteration_id=iteration_id, stage=stage).on_conflict_do_nothing()
    )


async def of(session: AsyncSession, iteration_id: UUID, stage: Stage) -> TrainingJob:
    found = await session.scalars(
        select(TrainingJob).where(
            TrainingJob.iteration_id == iteration_id, TrainingJob.stage == stage
        )
    )
    return found.one()


async def lease(session: AsyncSession, owner: str, seconds: float) -> TrainingJob | None:
    """Take the oldest job that nobody works on, or whose trainer died.

    One whose trainer died after it was asked to stop is stopped instead.
    """
    await stop_abandoned(session)
    job = await session.scalar(
        select(TrainingJob)
        .where(
            TrainingJob.stop_wanted.is_(None),
            or_(TrainingJob.state == JobState.QUEUED, _is_abandoned()),
        )
        .order_by(TrainingJob.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if job is not None:
        job.state = JobState.RUNNING
        job.num_attempts += 1
        job.lease_owner = owner
        job.lease_expires_at = func.now() + timedelta(seconds=seconds)
    return job


async def renew(session: AsyncSession, job_id: int, owner: str, seconds: float) -> bool:
    """Keep the lease; returns False if another trainer took the job."""
    kept = await session.scalar(
        update(TrainingJob)
        .where(
            TrainingJob.id == job_id,
            TrainingJob.lease_owner == owner,
            TrainingJob.state == JobState.RUNNING,
        )
        .values(lease_expires_at=func.now() + timedelta(seconds=seconds))
        .returning(TrainingJob.id)
    )
    return kept is not None


async def set_num_steps(session: AsyncSession, job_id: int, num_steps: int) -> None:
    await session.execute(
        update(TrainingJob).where(TrainingJob.id == job_id).values(num_steps=num_steps)
    )


async def add_metrics(
    session: AsyncSession, job: TrainingJob, step: int, metrics: dict[str, Any]
) -> None:
    """Store what was logged at `step`; later logs of one step add their keys."""
    statement = insert(TrainingMetric).values(
        job_id=job.id,
        attempt=job.num_attempts,
        step=step,
        metrics={name: in_json(value) for name, value in metrics.items()},
    )
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=[TrainingMetric.job_id, TrainingMetric.attempt, TrainingMetric.step],
            set_={"metrics": TrainingMetric.metrics.op("||")(statement.excluded.metrics)},
        )
    )


async def keep_metrics(session: AsyncSession, job: TrainingJob, up_to: int) -> None:
    """The attempt goes on where an earlier one was at step `up_to`: take over its metrics."""
    before = await session.scalar(
        select(func.max(TrainingMetric.attempt)).where(
            TrainingMetric.job_id == job.id, TrainingMetric.attempt < job.num_attempts
        )
    )
    if before is None:
        return
    taken = select(
        TrainingMetric.job_id,
        literal(job.num_attempts),
        TrainingMetric.step,
        TrainingMetric.metrics,
    ).where(
        TrainingMetric.job_id == job.id,
        TrainingMetric.attempt == before,
        TrainingMetric.step <= up_to,
    )
    columns = ["job_id", "attempt", "step", "metrics"]
    await session.execute(
        insert(TrainingMetric).from_select(columns, taken).on_conflict_do_nothing()
    )


def in_json(value: Any) -> Any:
    """JSON has no number for what is not finite, so the word stands there: `nan`, `inf`."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


async def succeed(session: AsyncSession, job: TrainingJob, version: str) -> None:
    """Hand the published version to the iteration and wake the controller."""
    await iterations.get(session, job.iteration_id, lock=True)  # before the job, as all others do
    await _end(session, job, JobState.SUCCEEDED, None)
    column = "baseline_version_id" if job.stage == Stage.BASELINE else "new_version_id"
    await session.execute(
        update(Iteration).where(Iteration.id == job.iteration_id).values({column: version})
    )


async def fail(
    session: AsyncSession, job: TrainingJob, why: str, kind: str = TrainingFailed.kind
) -> None:
    await _end(session, job, JobState.FAILED, why, kind)


def failure_of(job: TrainingJob) -> RewardloopError:
    """The error by which a failed job ended."""
    problem = {"type": job.error_kind or TrainingFailed.kind, "detail": job.error}
    error = errors.from_problem(problem, status=500)
    # A failed job stays failed, whatever it failed of: waiting for it would not help.
    return TrainingFailed(error.message) if error.transient else error


async def ask_to_stop(session: AsyncSession, iteration_id: UUID, how: StopWish) -> None:
    """Trainings of the iteration shall stop. Asking twice changes nothing, and a pause that
    comes after a cancel is none."""
    unfinished = [JobState.QUEUED, JobState.RUNNING, JobState.PAUSED]
    await session.execute(
        update(TrainingJob)
        .where(
            TrainingJob.iteration_id == iteration_id,
            TrainingJob.state.in_(unfinished),
            func.coalesce(TrainingJob.stop_wanted, "") != StopWish.CANCEL,
        )
        .values(stop_wanted=how)
    )
    await stop_abandoned(session)


async def ask_to_go_on(session: AsyncSession, iteration_id: UUID) -> None:
    """Trainings of the iteration that were stopped, or failed, are to be done; the wish to
    stop, where the trainer has not seen it yet, is taken back."""
    ended = [JobState.PAUSED, JobState.CANCELLED, JobState.FAILED]
    of_iteration = TrainingJob.iteration_id == iteration_id
    await session.execute(update(TrainingJob).where(of_iteration).values(stop_wanted=None))
    await session.execute(
        update(TrainingJob)
        .where(of_iteration, TrainingJob.state.in_(ended))
        .values(state=JobState.QUEUED, error=None, error_kind=None, finished_at=None)
    )


async def is_held(session: AsyncSession, iteration_id: UUID) -> bool:
    """Whether a trainer works on the iteration."""
    job = await session.scalar(
        select(TrainingJob.id).where(
            TrainingJob.iteration_id == iteration_id,
            TrainingJob.state == JobState.RUNNING,
            not_(_is_abandoned()),
        )
    )
    return job is not None


async def wish(session: AsyncSession, job: TrainingJob) -> tuple[bool, StopWish | None]:
    """Whether the trainer still holds the job, and how the job is to stop."""
    found = await session.execute(select(TrainingJob.stop_wanted).where(*_held(job)))
    row = found.one_or_none()
    if row is None:
        return False, None
    return True, StopWish(row.stop_wanted) if row.stop_wanted else None


async def end_stopped(session: AsyncSession, job: TrainingJob) -> None:
    """The training stopped as it was asked to; where the wish was taken back meanwhile, it
    is queued again."""
    await session.execute(update(TrainingJob).where(*_held(job)).values(_stopped()))
    outbox.add(session, outbox.ADVANCE, job.iteration_id)


async def stop_abandoned(session: AsyncSession) -> None:
    """Jobs that are to stop and that no trainer holds are stopped."""
    waits = TrainingJob.state.in_([JobState.QUEUED, JobState.PAUSED])
    stopped = await session.scalars(
        update(TrainingJob)
        .where(
            TrainingJob.stop_wanted.is_not(None),
            or_(waits, _is_abandoned()),
            TrainingJob.state != _state_after_stop(),
        )
        .values(_stopped())
        .returning(TrainingJob.iteration_id)
    )
    for iteration_id in stopped:
        outbox.add(session, outbox.ADVANCE, iteration_id)


def _is_abandoned() -> ColumnElement[bool]:
    """The job is running for a trainer that let its lease run out, or that died."""
    has_died = and_(
        TrainingJob.lease_owner.startswith(LOCKED),
        sessions.has_no_living_owner(TrainingJob.lease_owner),
    )
    return and_(
        TrainingJob.state == JobState.RUNNING,
        or_(TrainingJob.lease_expires_at < func.now(), has_died),
    )


def _stopped() -> dict[str, Any]:
    return {
        "state": _state_after_stop(),
        "finished_at": case((TrainingJob.stop_wanted == StopWish.CANCEL, func.now())),
        "lease_expires_at": None,
    }


def _state_after_stop() -> ColumnElement[str]:
    return case(
        (TrainingJob.stop_wanted == StopWish.PAUSE, JobState.PAUSED.value),
        (TrainingJob.stop_wanted == StopWish.CANCEL, JobState.CANCELLED.value),
        else_=JobState.QUEUED.value,
    )


async def note_failure(session: AsyncSession, job: TrainingJob, error: RewardloopError) -> None:
    """A failed attempt counts against the iteration, unless another trainer has the job now."""
    iteration = await iterations.get(session, job.iteration_id, lock=True)
    if await session.scalar(select(TrainingJob.id).where(*_held(job))) is not None:
        await iterations.note_failure(session, iteration, error)


def _held(job: TrainingJob) -> tuple[Any, ...]:
    return (
        TrainingJob.id == job.id,
        TrainingJob.state == JobState.RUNNING,
        TrainingJob.lease_owner == job.lease_owner,
    )


async def _end(
    session: AsyncSession,
    job: TrainingJob,
    state: JobState,
    why: str | None,
    kind: str | None = None,
) -> None:
    await session.execute(
        update(TrainingJob)
        .where(*_held(job))
        .values(
            state=state,
            error=why,
            error_kind=kind,
            finished_at=datetime.now(UTC),
            lease_expires_at=None,
        )
    )
    outbox.add(session, outbox.ADVANCE, job.iteration_id)


async def metrics_of(
    session: AsyncSession, iteration_id: UUID, stage: Stage = Stage.MODEL
) -> list[dict[str, Any]]:
    """The metric rows of the last attempt that logged any, by step."""
    last_attempt = (
        select(func.max(TrainingMetric.attempt))
        .where(TrainingMetric.job_id == TrainingJob.id)
        .correlate(TrainingJob)
        .scalar_subquery()
    )
    rows = await session.execute(
        select(TrainingMetric.step, TrainingMetric.metrics)
        .join(TrainingJob, TrainingJob.id == TrainingMetric.job_id)
        .where(
            TrainingJob.iteration_id == iteration_id,
            TrainingJob.stage == stage,
            TrainingMetric.attempt == last_attempt,
        )
        .order_by(TrainingMetric.step)
    )
    return [{"step": step, **metrics} for step, metrics in rows]
