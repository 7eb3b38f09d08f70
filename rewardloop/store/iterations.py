"""The life of an iteration: states and phases.

`state` and `phase` change only here and, where somebody asks for it, in `control`. Each
change writes its event, and its follow-up message through the outbox, in the caller's
transaction.
"""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import cast, func, select, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.config import RunConfig, stored_run_config
from rewardloop.errors import Conflict, NotFound, RewardloopError
from rewardloop.lifecycle import entrance
from rewardloop.records import (
    EvaluationState,
    IterationKind,
    IterationState,
    JobState,
    Phase,
)
from rewardloop.store import engines, events, failures, lineage, outbox
from rewardloop.store.models import (
    Iteration,
    PhaseSpan,
    Run,
    TrainingJob,
)


async def get(session: AsyncSession, iteration_id: UUID, *, lock: bool = False) -> Iteration:
    """
    Raises:
        NotFound: there is no such iteration.
    """
    found = await session.get(Iteration, iteration_id, with_for_update=lock)
    if found is None:
        raise NotFound(f"there is no iteration {iteration_id}; GET /v1/iterations lists them")
    return found


async def locked(session: AsyncSession, seen: Iteration) -> Iteration:
    """The iteration, locked, if it still runs in the phase in which another session saw it.

    Raises:
        Conflict: it has gone on since, so whoever saw it there comes too late to decide.
    """
    return await require_unchanged(session, seen, lock=True)


async def require_unchanged(
    session: AsyncSession, seen: Iteration, *, lock: bool = False
) -> Iteration:
    """The iteration, if it runs in the phase and since the start in which a task saw it: else
    another run's version may have answered the task, and what it has must not be stored.

    Raises:
        Conflict: it has stopped or gone on.
    """
    now = await get(session, seen.id, lock=lock)
    same = (IterationState.RUNNING, seen.phase, seen.num_starts)
    if (now.state, now.phase, now.num_starts) != same:
        raise Conflict(
            f"iteration {seen.id} has gone on from {seen.phase} to {now.phase} "
            f"({now.state}) without this process"
        )
    return now


async def list_newest(
    session: AsyncSession, limit: int, run_id: UUID | None = None
) -> list[Iteration]:
    query = select(Iteration).order_by(Iteration.created_at.desc(), Iteration.index.desc())
    if run_id is not None:
        query = query.where(Iteration.run_id == run_id)
    return list(await session.scalars(query.limit(limit)))


async def try_start(session: AsyncSession, iteration_id: UUID) -> bool:
    """Start a queued iteration if it is its turn; returns whether it runs now.

    Its turn: it needs no engines now, or nobody has them and no evaluation waits; and its
    versions are there (`lineage`). One that ran before goes on where it stopped.
    """
    await engines.lock(session)
    iteration = await get(session, iteration_id, lock=True)
    if iteration.state != IterationState.QUEUED:
        return False
    run = await session.get_one(Run, iteration.run_id)
    phase = _entrance(iteration, stored_run_config(run.config))
    if engines.needs(iteration, phase) and not await _are_free(session):
        return False
    if not await lineage.assign(session, iteration, phase):
        return False
    iteration.state = IterationState.RUNNING
    iteration.num_starts += 1
    iteration.started_at = iteration.started_at or datetime.now(UTC)
    await enter(session, iteration, phase)
    return True


async def _are_free(session: AsyncSession) -> bool:
    if await engines.busy(session):
        return False
    return await engines.first_evaluation(session, EvaluationState.QUEUED) is None


def _entrance(iteration: Iteration, config: RunConfig) -> Phase:
    if iteration.phase != Phase.WAITING:
        return entrance(iteration.kind, iteration.phase, iteration.max_lag)
    if iteration.kind == IterationKind.BOOTSTRAP:
        return Phase.TRAIN_BASELINE
    replayed = config.replay is not None and iteration.index == 1
    return Phase.PROMPT_MODEL if config.prompts.self_instruct and not replayed else Phase.PREPARE


async def of_run(session: AsyncSession, run_id: UUID) -> list[Iteration]:
    """A run's iterations by index."""
    found = await session.scalars(
        select(Iteration).where(Iteration.run_id == run_id).order_by(Iteration.index)
    )
    return list(found)


async def add_to_report(
    session: AsyncSession, iteration_id: UUID, subject: str, found: dict[str, Any]
) -> None:
    """Store what a phase found under `subject`; the newer of one name wins."""
    before = func.coalesce(Iteration.report[subject], cast({}, JSONB))
    merged = func.jsonb_build_object(subject, before.op("||")(cast(found, JSONB)))
    await session.execute(
        update(Iteration)
        .where(Iteration.id == iteration_id)
        .values(report=Iteration.report.op("||")(merged))
    )


async def enter(session: AsyncSession, iteration: Iteration, phase: Phase) -> None:
    """Leave the current phase and enter `phase`; where that needs the engines no more, whatever
    waits for them is woken."""
    await leave_phase(session, iteration)
    iteration.phase = phase
    iteration.failing_since = None
    if phase is not Phase.DONE:
        await _open_span(session, iteration.id, phase)
    events.of_iteration(session, iteration, phase)
    if not engines.needs(iteration, phase):
        await session.flush()
        await engines.wake_next(session)


async def wait_for_version(session: AsyncSession, iteration: Iteration) -> None:
    """The answers are there, and the version that is trained on them is not: give the engines
    back, and wait for the iteration before. The caller holds its row."""
    await leave_phase(session, iteration)
    iteration.state = IterationState.QUEUED
    iteration.phase = Phase.PAIRING
    iteration.failing_since = None
    events.of_iteration(session, iteration, "answered")
    await session.flush()
    await engines.wake_next(session)


async def _open_span(session: AsyncSession, iteration_id: UUID, phase: Phase) -> None:
    """A phase that is entered again counts on from the seconds that it has."""
    spent = func.coalesce(PhaseSpan.ended_at, func.clock_timestamp()) - PhaseSpan.started_at
    await session.execute(
        insert(PhaseSpan)
        .values(iteration_id=iteration_id, phase=phase)
        .on_conflict_do_update(
            index_elements=[PhaseSpan.iteration_id, PhaseSpan.phase],
            set_={
                "earlier_seconds": PhaseSpan.earlier_seconds + func.extract("epoch", spent),
                "started_at": func.clock_timestamp(),
                "ended_at": None,
            },
        )
    )


async def leave_phase(session: AsyncSession, iteration: Iteration) -> None:
    """The phase's clock stands still; `phase` stays, to say where the iteration stopped."""
    await session.execute(
        update(PhaseSpan)
        .where(PhaseSpan.iteration_id == iteration.id, PhaseSpan.ended_at.is_(None))
        .values(ended_at=func.clock_timestamp())
    )


async def succeed(session: AsyncSession, iteration: Iteration) -> None:
    """End the iteration and wake whatever waits behind it."""
    await enter(session, iteration, Phase.DONE)
    iteration.state = IterationState.SUCCEEDED
    iteration.wish = None
    iteration.finished_at = datetime.now(UTC)
    await session.flush()
    await engines.wake_next(session)


async def fail(session: AsyncSession, iteration: Iteration, error: RewardloopError) -> None:
    """End the iteration with the error. Those behind it in its run stay queued: they wait
    until it was retried and has succeeded. The caller holds the iteration's row."""
    iteration.state = IterationState.FAILED
    iteration.wish = None
    iteration.error = error.message
    iteration.error_kind = error.kind
    iteration.finished_at = datetime.now(UTC)
    events.of_iteration(
        session,
        iteration,
        "failed",
        phase=iteration.phase,
        error=error.message,
        error_kind=error.kind,
    )
    await _end_training(session, iteration, error)
    await leave_phase(session, iteration)
    await session.flush()
    await engines.wake_next(session)


async def go_on(session: AsyncSession, iteration: Iteration) -> None:
    """Queue an iteration that failed, was paused or was cancelled. When it is its turn, it goes
    on from what is stored, in the phase in which it stopped. The caller holds its row.

    What it ended with is kept in the event. One that is queued or runs stays as it is.
    """
    if iteration.state in (IterationState.QUEUED, IterationState.RUNNING):
        return
    assert iteration.state != IterationState.SUCCEEDED
    events.of_iteration(
        session,
        iteration,
        "resumed" if iteration.state == IterationState.PAUSED else "retried",
        phase=iteration.phase,
        was=iteration.state,
        error=iteration.error,
        error_kind=iteration.error_kind,
    )
    if iteration.phase == Phase.PROMPTS and "prompts" in iteration.report:
        iteration.report = _with_new_attempts(iteration.report)
    iteration.state = IterationState.QUEUED
    iteration.error = iteration.error_kind = None
    iteration.failing_since = iteration.finished_at = None
    await session.flush()
    outbox.add(session, outbox.ADVANCE, iteration.id)


def _with_new_attempts(report: dict[str, Any]) -> dict[str, Any]:
    """Without the verdict on the prompts that were written, which would be the phase's end;
    as many may be written again as at first."""
    rest = {subject: found for subject, found in report.items() if subject != "prompts"}
    return {**rest, "prompts_before_retry": report["prompts"]}


async def _end_training(
    session: AsyncSession, iteration: Iteration, error: RewardloopError
) -> None:
    """A trainer takes no job of an iteration that is over, and stops at what it has."""
    await session.execute(
        update(TrainingJob)
        .where(
            TrainingJob.iteration_id == iteration.id,
            TrainingJob.state.in_([JobState.QUEUED, JobState.RUNNING]),
        )
        .values(
            state=JobState.FAILED,
            error=error.message,
            error_kind=error.kind,
            finished_at=datetime.now(UTC),
            lease_expires_at=None,
        )
    )


async def note_failure(session: AsyncSession, iteration: Iteration, error: RewardloopError) -> None:
    """Fail the iteration, unless the error may pass by itself and has not lasted too long."""
    if iteration.state != IterationState.RUNNING:
        return
    if await failures.must_end(session, iteration, error):
        await fail(session, iteration, error)
        return
    events.record(
        session,
        "iteration.retry",
        run_id=iteration.run_id,
        iteration_id=iteration.id,
        **error.problem(),
    )


async def note_progress(session: AsyncSession, iteration_id: UUID) -> None:
    """Work went on, so failures before it were passing ones."""
    await session.execute(
        update(Iteration)
        .where(Iteration.id == iteration_id, Iteration.failing_since.is_not(None))
        .values(failing_since=None)
    )
