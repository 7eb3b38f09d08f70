"""Which version an iteration's answers come from, and which one it trains.

Both are the newest version of the run: the one that the iteration before made. An iteration that
may lag need not wait for it: while the iteration before trains, it answers with the version
which that one trains. Then its answers are one version older than what is trained on them.
"""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.lifecycle import WITHOUT_ENGINES
from rewardloop.records import IterationState, Phase
from rewardloop.store.models import Iteration, Run


async def before(session: AsyncSession, iteration: Iteration) -> Iteration | None:
    """The iteration before this one in its run."""
    return await session.scalar(
        select(Iteration)
        .where(Iteration.run_id == iteration.run_id, Iteration.index < iteration.index)
        .order_by(Iteration.index.desc())
        .limit(1)
    )


async def assign(session: AsyncSession, iteration: Iteration, phase: Phase) -> bool:
    """Give an iteration its versions as far as they are there; returns whether these suffice to
    start in `phase`. One that it has it keeps."""
    if iteration.trains_version_id is None:
        earlier = await before(session, iteration)
        newest = await _newest(session, iteration, earlier)
        iteration.trains_version_id = newest
        if iteration.base_version_id is None:
            iteration.base_version_id = newest or answers_meanwhile(iteration, earlier)
    if iteration.max_lag and phase in WITHOUT_ENGINES:
        return iteration.trains_version_id is not None
    return iteration.base_version_id is not None


def must_wait(iteration: Iteration, earlier: Iteration) -> bool:
    """Whether a queued iteration cannot go on until `earlier`, the one before it, succeeds."""
    if iteration.trains_version_id is not None or earlier.state == IterationState.SUCCEEDED:
        return False
    if iteration.max_lag and iteration.phase in WITHOUT_ENGINES:
        return True
    return not (iteration.base_version_id or answers_meanwhile(iteration, earlier))


async def _newest(
    session: AsyncSession, iteration: Iteration, earlier: Iteration | None
) -> str | None:
    """None while `earlier` has not succeeded."""
    if earlier is None:
        run = await session.get_one(Run, iteration.run_id)
        return run.base_version_id
    return earlier.new_version_id if earlier.state == IterationState.SUCCEEDED else None


def answers_meanwhile(iteration: Iteration, earlier: Iteration | None) -> str | None:
    """The version that answers while `earlier` trains; None where that has to be waited for: its
    training has not begun, has stopped, or has made its version, which is the better one."""
    if not iteration.max_lag or earlier is None or not earlier.max_lag:
        return None
    trains = earlier.state == IterationState.RUNNING and earlier.phase == Phase.TRAIN
    return earlier.trains_version_id if trains and earlier.new_version_id is None else None
