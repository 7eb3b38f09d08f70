"""How long what runs may keep failing before it is given up."""

from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.errors import RewardloopError
from rewardloop.store.models import Evaluation, Iteration

MAX_FAILING = timedelta(hours=1)
"""Since the first of the failures in a row: a large engine takes a quarter of one to start."""


async def must_end(
    session: AsyncSession, failing: Iteration | Evaluation, error: RewardloopError
) -> bool:
    """Note a failure of what runs, and say whether it was one too many.

    An error that will not pass ends it at once; others may last for MAX_FAILING without
    any progress in between.
    """
    if not error.transient:
        return True
    # Nothing was tried while Postgres was stopped, so a stack that stood still for a night
    # has its whole hour again.
    times = await session.execute(select(func.now(), func.pg_postmaster_start_time()))
    now, started = times.one()
    failing.failing_since = max(failing.failing_since or now, started)
    return bool(now - failing.failing_since >= MAX_FAILING)
