"""Training jobs, leased by the trainer, and the metrics that TRL logs."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.errors import RewardloopError
from rewardloop.records import JobState, Stage
from rewardloop.store import iterations, outbox
from rewardloop.store.models import Iteration, TrainingJob, TrainingMetric


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
    """Take the oldest job that nobody works on, or whose trainer died."""
    job = await session.scalar(
        select(TrainingJob)
        .where(
            or_(
                TrainingJob.state == JobState.QUEUED,
                (TrainingJob.state == JobState.RUNNING)
                & (TrainingJob.lease_expires_at < func.now()),
            )
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
        job_id=job.id, attempt=job.num_attempts, step=step, metrics=metrics
    )
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=[TrainingMetric.job_id, TrainingMetric.attempt, TrainingMetric.step],
            set_={"metrics": TrainingMetric.metrics.op("||")(statement.excluded.metrics)},
        )
    )


async def succeed(session: AsyncSession, job: TrainingJob, version: str) -> None:
    """Hand the published version to the iteration and wake the controller."""
    await _end(session, job, JobState.SUCCEEDED, None)
    column = "baseline_version_id" if job.stage == Stage.BASELINE else "new_version_id"
    await session.execute(
        update(Iteration).where(Iteration.id == job.iteration_id).values({column: version})
    )


async def fail(session: AsyncSession, job: TrainingJob, why: str) -> None:
    await _end(session, job, JobState.FAILED, why)


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


async def _end(session: AsyncSession, job: TrainingJob, state: JobState, why: str | None) -> None:
    await session.execute(
        update(TrainingJob)
        .where(*_held(job))
        .values(state=state, error=why, finished_at=datetime.now(UTC), lease_expires_at=None)
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
