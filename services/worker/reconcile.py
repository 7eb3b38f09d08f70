"""Brings back what was lost: messages, leases, work whose process died.

Runs every few seconds, one at a time in the whole cluster. Losing every message
in the broker costs at most REMIND_SECONDS.
"""

import logging
from datetime import UTC, datetime

from celery import Celery

from rewardloop import queue_names
from rewardloop.queue import relay
from rewardloop.records import Phase
from rewardloop.store import Store, iterations, outbox, rollouts

logger = logging.getLogger("rewardloop.worker")


async def run(store: Store, app: Celery) -> None:
    async with store.advisory_lock("reconcile") as held:
        if not held:
            return
        async with store.transaction() as session:
            num_expired = await rollouts.take_back_expired(session)
            for iteration_id in await iterations.unfinished(session):
                outbox.add(session, queue_names.ADVANCE, iteration_id)
                iteration = await iterations.get(session, iteration_id)
                if iteration.phase == Phase.ROLLOUT and await rollouts.is_stalled(
                    session, iteration_id
                ):
                    outbox.add(session, queue_names.ROLLOUT, iteration_id)
        if num_expired:
            logger.warning("took back %d expired leases at %s", num_expired, datetime.now(UTC))
        await relay(store, app)
