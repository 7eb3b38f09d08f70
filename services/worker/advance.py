"""The controller: takes an iteration from phase to phase.

    improve    waiting -> [prompt_model -> prompts] -> prepare -> rollout -> pairing -> train
               -> swap -> [assess] -> done
    bootstrap  waiting -> train_baseline -> swap_baseline -> judge_ranked -> select_eft
               -> train -> swap -> assess -> done

Phases in brackets are skipped where the run's config does not ask for them. An iteration that
may lag waits, queued, between rollout and pairing until the one before it has succeeded, and
leaves the engines to others from there until its swap. `run` takes
every step that can be taken now and returns; whoever finishes the work that a phase waits
for sends for it again, and so does the reconciler. It may run at any time, any number of
times: steps look at Postgres, not at the message. An advisory lock keeps two controllers
off one iteration. What the steps of each kind do stands in `improve` and `bootstrap`.
"""

import logging
from uuid import UUID

from celery import Celery

from rewardloop.config import Settings, stored_run_config
from rewardloop.errors import RewardloopError
from rewardloop.queue import relay
from rewardloop.records import IterationKind, IterationState
from rewardloop.store import Store, control, iterations, locks, runs
from services.worker.bootstrap import Bootstrapping
from services.worker.improve import Improving
from services.worker.phase import failures_noted
from services.worker.steps import Steps

logger = logging.getLogger("rewardloop.worker")

KINDS: dict[str, type[Steps]] = {
    IterationKind.BOOTSTRAP: Bootstrapping,
    IterationKind.IMPROVE: Improving,
}


async def run(store: Store, app: Celery, settings: Settings, iteration_id: UUID) -> None:
    async with store.advisory_lock(locks.advancing(iteration_id)) as held:
        if not held:
            return
        while await step(store, settings, iteration_id):
            await relay(store, app)
        await _stopped(store, iteration_id)  # what was asked for during the last step
    await relay(store, app)


async def step(store: Store, settings: Settings, iteration_id: UUID) -> bool:
    """Take one step; returns whether another can be taken at once.

    What people asked for comes between two steps, so no swap is torn.
    """
    if await _stopped(store, iteration_id):
        return False
    async with store.transaction() as session:
        iteration = await iterations.get(session, iteration_id)
        run_row = await runs.get(session, iteration.run_id)
    if iteration.state not in (IterationState.QUEUED, IterationState.RUNNING):
        return False
    try:
        async with failures_noted(store, iteration):
            config = stored_run_config(run_row.config)
            steps = KINDS[iteration.kind](store, settings, config, iteration)
            return await steps.next()
    except RewardloopError as error:
        logger.warning("iteration %s in %s: %s", iteration_id, iteration.phase, error.message)
        return False


async def _stopped(store: Store, iteration_id: UUID) -> bool:
    """Whether the iteration was asked to stop, and has."""
    async with store.transaction() as session:
        iteration = await iterations.get(session, iteration_id, lock=True)
        return await control.settle(session, iteration)
