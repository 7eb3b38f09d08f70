"""A child that is ended from outside is started again, once for each state that it saves."""

from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from rewardloop.errors import TrainingFailed, TrainingKilled
from services.trainer.child_runs import with_restart

Said = dict[str, Any]
KILLED = TrainingKilled("ended by SIGKILL")


def children(*runs: list[Said | Exception]) -> tuple[Callable[[], Any], list[int]]:
    """What starts the next of `runs`, and how many were started."""
    started: list[int] = []

    async def start() -> AsyncGenerator[Said, None]:
        started.append(len(started))
        for said in runs[len(started) - 1]:
            if isinstance(said, Exception):
                raise said
            yield said

    return start, started


async def heard(start: Callable[[], Any]) -> list[Said]:
    return [said async for said in with_restart(start)]


async def test_a_child_that_is_killed_once_is_started_again() -> None:
    start, started = children([{"step": 1}, KILLED], [{"step": 2}])
    assert await heard(start) == [
        {"step": 1},
        {"num_restarts_of_child": 1, "restarted_because": "ended by SIGKILL"},
        {"step": 2},
    ]
    assert len(started) == 2


async def test_a_child_that_is_killed_twice_without_a_state_between_has_failed() -> None:
    start, started = children([{"saved_step": 50}, KILLED], [{"resumed_at": 50}, KILLED], [])
    with pytest.raises(TrainingKilled, match=r"SIGKILL.*state of step 50"):
        await heard(start)
    assert len(started) == 2


async def test_a_child_that_saves_a_state_each_time_goes_on() -> None:
    start, started = children(
        [{"saved_step": 50}, KILLED], [{"saved_step": 100}, KILLED], [{"saved_step": 150}]
    )
    await heard(start)
    assert len(started) == 3


async def test_an_error_that_the_child_reports_is_not_tried_again() -> None:
    start, started = children([TrainingFailed("bad rows")], [])
    with pytest.raises(TrainingFailed, match="bad rows"):
        await heard(start)
    assert len(started) == 1
