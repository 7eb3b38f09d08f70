"""What the tasks that work for one phase of an iteration have in common."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from rewardloop.config import RunConfig, stored_run_config
from rewardloop.errors import recordable
from rewardloop.records import IterationState, Phase
from rewardloop.store import Store, iterations, runs
from rewardloop.store.models import Iteration

WORK_SECONDS = 200.0
"""A task takes no new work after this and sends for a successor, so that none grows old."""


async def running_in(
    store: Store, iteration_id: UUID, *phases: Phase
) -> tuple[Iteration, RunConfig] | None:
    """The iteration and its run's config while it is in one of `phases` and shall go on, else
    None."""
    async with store.transaction() as session:
        iteration = await iterations.get(session, iteration_id)
        run_row = await runs.get(session, iteration.run_id)
    if iteration.state != IterationState.RUNNING or iteration.phase not in phases:
        return None
    if iteration.wish is not None:
        return None
    return iteration, stored_run_config(run_row.config)


@asynccontextmanager
async def failures_noted(store: Store, seen: Iteration) -> AsyncIterator[None]:
    """An error within the block is recorded at the iteration, then raised.

    It is any error: one that nobody records is tried again for ever. One that comes when the
    iteration has gone on from the phase in which it was seen is none of its own.
    """
    try:
        yield
    except Exception as error:
        async with store.transaction() as session:
            iteration = await iterations.get(session, seen.id, lock=True)
            if (iteration.phase, iteration.num_starts) == (seen.phase, seen.num_starts):
                await iterations.note_failure(session, iteration, recordable(error))
        raise
