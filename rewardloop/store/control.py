"""Carries out what people ask of iterations and evaluations: pause, resume, cancel, retry.

The rules stand in `rewardloop.lifecycle`. What runs keeps a wish until it can stop: a pause
waits for the work in flight, and neither tears a swap. Whoever comes first carries the wish
out: the request itself, the controller between two steps, or the reconciler's next look. So a
wish that was committed comes true whichever process dies.
"""

from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.errors import TooManyDead
from rewardloop.lifecycle import Ask, Standing, after
from rewardloop.records import EvaluationState, IterationState, Phase, StopWish
from rewardloop.store import (
    dead_prompts,
    engines,
    evaluations,
    events,
    failed_items,
    iterations,
    lineage,
    locks,
    outbox,
    rollouts,
    training,
)
from rewardloop.store.models import Evaluation, Iteration

TRAININGS = (Phase.TRAIN, Phase.TRAIN_BASELINE)


async def ask(session: AsyncSession, iteration_id: UUID, what: Ask) -> Iteration:
    """Do `what`, as far as it can be done now; the rest happens within seconds.

    Raises:
        NotFound: there is no such iteration.
        Conflict: `what` contradicts where the iteration stands.
    """
    iteration = await iterations.get(session, iteration_id, lock=True)
    now = Standing(iteration.state, iteration.wish)
    then = after(now, what, f"iteration {iteration.index} of its run")
    if then == now:
        return iteration
    if then.state == IterationState.QUEUED:
        if iteration.error_kind == TooManyDead.kind:  # else it would fail again at once
            await dead_prompts.retry(session, iteration_id)
        await iterations.go_on(session, iteration)
    elif then.state == IterationState.RUNNING:
        await _wish(session, iteration, then.wish)
    else:
        await _stop(session, iteration, IterationState(then.state))
    return iteration


async def _wish(session: AsyncSession, iteration: Iteration, wish: str | None) -> None:
    """Ask what runs to stop, or to go on after all, and carry that out if nobody works."""
    iteration.wish = wish
    what = f"{wish}_asked" if wish else "pause_withdrawn"
    events.of_iteration(session, iteration, what, phase=iteration.phase)
    await session.flush()
    if wish is not None:
        await training.ask_to_stop(session, iteration.id, StopWish(wish))
        if await locks.take(session, locks.advancing(iteration.id)):
            await settle(session, iteration)
    elif iteration.phase in TRAININGS:
        await training.ask_to_go_on(session, iteration.id)
    outbox.add(session, outbox.ADVANCE, iteration.id)


async def settle(session: AsyncSession, iteration: Iteration) -> bool:
    """Carry out what a running iteration was asked for, if it can be now; returns whether it
    has stopped. The caller holds its row, and the lock under which it is advanced."""
    if iteration.state != IterationState.RUNNING or iteration.wish is None:
        return False
    if iteration.wish == StopWish.PAUSE:
        # Again, for a job that the controller has added since the wish.
        await training.ask_to_stop(session, iteration.id, StopWish.PAUSE)
        if not await _is_idle(session, iteration):
            return False
    cancelled = iteration.wish == StopWish.CANCEL
    await _stop(
        session, iteration, IterationState.CANCELLED if cancelled else IterationState.PAUSED
    )
    return True


async def _stop(session: AsyncSession, iteration: Iteration, state: IterationState) -> None:
    """Give back what the iteration holds. Tasks that work for it learn it within seconds."""
    iteration.state = state
    iteration.wish = iteration.failing_since = None
    if state == IterationState.CANCELLED:
        iteration.finished_at = datetime.now(UTC)
        await training.ask_to_stop(session, iteration.id, StopWish.CANCEL)
        await rollouts.take_back_all(session, iteration.id)
    await iterations.leave_phase(session, iteration)
    events.of_iteration(session, iteration, state, phase=iteration.phase)
    await session.flush()
    await engines.wake_next(session)


async def _is_idle(session: AsyncSession, iteration: Iteration) -> bool:
    """Whether nothing of the iteration is in flight, the controller's own steps aside."""
    if iteration.phase == Phase.ROLLOUT:
        return await rollouts.num_working(session, iteration.id) == 0
    if iteration.phase == Phase.PROMPTS:
        return await locks.take(session, locks.writing_prompts(iteration.id))
    if iteration.phase in (Phase.JUDGE_RANKED, Phase.ASSESS):
        return await locks.take(session, locks.assessing(iteration.id))
    if iteration.phase in TRAININGS:
        return not await training.is_held(session, iteration.id)
    return True


async def waits_for(session: AsyncSession, iteration: Iteration) -> str | None:
    """What an iteration that is queued, or is trained and not swapped in, waits for, in words;
    None for any other."""
    if iteration.state == IterationState.RUNNING:
        is_trained = iteration.phase == Phase.TRAIN and iteration.new_version_id is not None
        if not is_trained or engines.needs(iteration, iteration.phase):
            return None
        return await _has_the_engines(session)
    if iteration.state != IterationState.QUEUED:
        return None
    earlier = await lineage.before(session, iteration)
    if earlier is not None and lineage.must_wait(iteration, earlier):
        return f"iteration {earlier.index} of this run, which {_STANDS[earlier.state]}"
    holder = None
    if engines.needs(iteration, iteration.phase):
        holder = await _has_the_engines(session)
    return holder or "the controller, which starts it within seconds"


async def _has_the_engines(session: AsyncSession) -> str | None:
    """Who has them, or has them next."""
    running = await engines.holder(session)
    if running is not None:
        return f"iteration {running.index} of run {running.run_id}, which has the engines"
    for state in (EvaluationState.RUNNING, EvaluationState.QUEUED):
        if evaluation_id := await engines.first_evaluation(session, state):
            return f"evaluation {evaluation_id}, which goes first"
    return None


_STANDS: dict[str, str] = {
    IterationState.QUEUED: "waits too",
    IterationState.RUNNING: "runs",
    IterationState.PAUSED: "is paused: resume it",
    IterationState.CANCELLED: "was cancelled: retry it",
    IterationState.FAILED: "failed: retry it",
}


async def ask_evaluation(session: AsyncSession, evaluation_id: UUID, what: Ask) -> Evaluation:
    """Cancel an evaluation or retry it.

    Raises:
        NotFound: there is no such evaluation.
        Conflict: `what` contradicts where the evaluation stands.
    """
    evaluation = await evaluations.get(session, evaluation_id, lock=True)
    now = Standing(evaluation.state, evaluation.wish)
    then = after(now, what, f"evaluation {evaluation_id}")
    if then == now:
        return evaluation
    if then.state == EvaluationState.QUEUED:
        await failed_items.retry(session, evaluation_id)
        evaluations.go_on(session, evaluation)
    else:
        evaluation.wish = then.wish if then.state == EvaluationState.RUNNING else None
        await session.flush()
        if await locks.take(session, locks.evaluating(evaluation_id)):
            await evaluations.stop(session, evaluation)
    return evaluation
