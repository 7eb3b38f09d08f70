"""What the tasks that work for one phase of an iteration have in common."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TypeVar
from uuid import UUID

from rewardloop.config import RunConfig, stored_run_config
from rewardloop.errors import recordable
from rewardloop.records import IterationState, Phase
from rewardloop.store import Store, iterations, runs
from rewardloop.store.models import Iteration
from services.worker.permit import Permit

WORK_SECONDS = 200.0
"""A task takes no new work after this and sends for a successor, so that none grows old."""

T = TypeVar("T")


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


async def work_through(
    items: Iterable[T], work: Callable[[T], Awaitable[None]], permit: Permit, *, limit: int
) -> None:
    """Work on the items, `limit` at once, and take none after WORK_SECONDS or a pause.

    The first error of an item is raised, and cancels the others.
    """
    deadline = time.monotonic() + WORK_SECONDS
    waiting = iter(items)

    async def lane() -> None:
        for item in waiting:
            await work(item)
            if time.monotonic() > deadline or not permit.may_take_more:
                return

    async with together() as group:
        for _ in range(limit):
            group.create_task(lane())


@asynccontextmanager
async def together() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group that raises the first error of its tasks as it is, not in a group."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures
