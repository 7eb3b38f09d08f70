"""Brings back what was lost: messages, leases, work whose process died.

The controller's clock runs it every two seconds, one at a time in the whole cluster. It needs
no message: losing every one in the broker costs at most that time, and so does a worker that
died, whose session lock is free by then.
"""

import logging

from celery import Celery
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.queue import relay
from rewardloop.records import Phase
from rewardloop.store import (
    Store,
    engines,
    iterations,
    lost_leases,
    outbox,
    rollouts,
    runs,
    training,
)
from rewardloop.store.models import Iteration
from services.worker import assess, evaluate, prompts

logger = logging.getLogger("rewardloop.worker")


async def run(store: Store, app: Celery) -> None:
    async with store.advisory_lock("reconcile") as held:
        if not held:
            return
        async with store.transaction() as session:
            num_orphans = await lost_leases.take_back_orphans(session)
            num_expired = await lost_leases.take_back_expired(session)
            await training.stop_abandoned(session)
            for iteration_id in await engines.due_iterations(session):
                outbox.add(session, outbox.ADVANCE, iteration_id)
                iteration = await iterations.get(session, iteration_id)
                await _remind_workers(store, session, iteration)
            due = await engines.due_evaluation(session)
            if due is not None and await _is_free(store, evaluate.lock_name(due)):
                outbox.add(session, outbox.EVALUATE, due)
        if num_orphans or num_expired:
            logger.warning(
                "took back %d leases whose task is gone and %d that ran out",
                num_orphans,
                num_expired,
            )
        await relay(store, app)


async def _remind_workers(store: Store, session: AsyncSession, iteration: Iteration) -> None:
    """Where no running task holds a phase, send for a worker again."""
    if iteration.phase == Phase.ROLLOUT:
        if await rollouts.has_pending(session, iteration.id):
            run = await runs.get(session, iteration.run_id)
            wanted = await rollouts.num_wanted(session, run.config["rollout"]["num_tasks"])
            missing = wanted - await rollouts.num_working(session, iteration.id)
            outbox.add(session, outbox.ROLLOUT, iteration.id, times=missing)
    elif iteration.phase == Phase.PROMPTS:
        if await _is_free(store, prompts.lock_name(iteration.id)):
            outbox.add(session, outbox.PROMPTS, iteration.id)
    elif iteration.phase in assess.PHASES and await _is_free(store, assess.lock_name(iteration.id)):
        outbox.add(session, outbox.ASSESS, iteration.id)


async def _is_free(store: Store, lock_name: str) -> bool:
    """Whether no task holds the lock, which also means that none works."""
    async with store.advisory_lock(lock_name) as free:
        return free
