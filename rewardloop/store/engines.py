"""Whose turn it is on the engines: the replicas serve one version at a time, so one
iteration or one evaluation has them, and evaluations go first.

A running iteration has them in every phase; one that may lag leaves them to others while it
pairs and trains.
"""

from uuid import UUID

from sqlalchemy import func, or_, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.lifecycle import WITHOUT_ENGINES
from rewardloop.records import EvaluationState, IterationState
from rewardloop.store import outbox
from rewardloop.store.models import Evaluation, Iteration


async def lock(session: AsyncSession) -> None:
    """Until the transaction ends, nobody else decides whose turn it is."""
    await session.execute(text("SELECT pg_advisory_xact_lock(hashtext('rewardloop:start'))"))


def needs(iteration: Iteration, phase: str) -> bool:
    """Whether the iteration needs the engines in `phase`."""
    return not iteration.max_lag or phase not in WITHOUT_ENGINES


async def holder(session: AsyncSession) -> Iteration | None:
    """The iteration that has the engines."""
    return await session.scalar(
        select(Iteration).where(
            Iteration.state == IterationState.RUNNING,
            or_(Iteration.max_lag == 0, Iteration.phase.not_in(WITHOUT_ENGINES)),
        )
    )


async def busy(session: AsyncSession) -> bool:
    """Whether an iteration or an evaluation has the engines."""
    if await holder(session) is not None:
        return True
    return await first_evaluation(session, EvaluationState.RUNNING) is not None


async def can_have(session: AsyncSession, iteration: Iteration) -> bool:
    """Whether a running iteration has the engines, or can take them in this transaction."""
    if needs(iteration, iteration.phase):
        return True
    await lock(session)
    return not await busy(session)


async def first_evaluation(session: AsyncSession, state: EvaluationState) -> UUID | None:
    """The oldest one in `state`."""
    return await session.scalar(
        select(Evaluation.id)
        .where(Evaluation.state == state)
        .order_by(Evaluation.created_at, Evaluation.id)
        .limit(1)
    )


async def due_iterations(session: AsyncSession) -> list[UUID]:
    """Iterations that run; those that wait and need no engines; while the engines are free, the
    first that waits in each run."""
    waits = Iteration.state == IterationState.QUEUED
    needs_none = (Iteration.max_lag > 0) & Iteration.phase.in_(WITHOUT_ENGINES)
    wanted = (Iteration.state == IterationState.RUNNING) | (waits & needs_none)
    if not await busy(session):
        heads = select(Iteration.run_id, func.min(Iteration.index)).where(waits)
        wanted |= waits & tuple_(Iteration.run_id, Iteration.index).in_(
            heads.group_by(Iteration.run_id)
        )
    found = await session.scalars(
        select(Iteration.id).where(wanted).order_by(Iteration.created_at, Iteration.index)
    )
    return list(found)


async def due_evaluation(session: AsyncSession) -> UUID | None:
    """The evaluation that runs; while the engines are free, the first that waits."""
    running = await first_evaluation(session, EvaluationState.RUNNING)
    if running is not None or await busy(session):
        return running
    return await first_evaluation(session, EvaluationState.QUEUED)


async def wake_next(session: AsyncSession) -> None:
    """What had the engines is over: whatever may be next looks whether it is."""
    for iteration_id in await due_iterations(session):
        outbox.add(session, outbox.ADVANCE, iteration_id)
    evaluation_id = await due_evaluation(session)
    if evaluation_id is not None:
        outbox.add(session, outbox.EVALUATE, evaluation_id)
