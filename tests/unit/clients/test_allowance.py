"""As many calls at once as keep an engine's queue short and never empty."""

import pytest

from rewardloop.clients.allowance import (
    FEWEST_CALLS,
    FIRST_CALLS,
    LONG_QUEUE,
    MAX_CALLS,
    Allowance,
    Load,
)


class Engine:
    """Runs `room` calls at once, each for `seconds`, one report a second; the client has calls
    without end, and other people `num_others` in it all the time."""

    def __init__(self, room: int, seconds: int, num_others: int = 0) -> None:
        self._room, self._seconds, self._num_others = room, seconds, num_others
        self._ours = 0

    def second(self, allowed: Allowance) -> Load:
        self._ours = max(self._ours, allowed.num_calls)  # what is inside does not come back
        everything = self._ours + self._num_others
        running = min(self._room, everything)
        num_answered = round(running * self._ours / everything / self._seconds)
        for _ in range(num_answered):
            allowed.answered()
        self._ours -= num_answered
        self._ours = max(self._ours, min(allowed.num_calls, self._ours + num_answered))
        everything = self._ours + self._num_others
        load = Load(min(self._room, everything), max(0, everything - self._room))
        allowed.reported(load, self._ours)
        return load


@pytest.mark.parametrize("room", [16, 100, 300, 1000, 1800])
@pytest.mark.parametrize("seconds", [1, 4, 20])
def test_the_queue_becomes_short_and_never_empty_for_long(room: int, seconds: int) -> None:
    engine, allowed = Engine(room, seconds), Allowance()
    for _ in range(300):
        engine.second(allowed)
    loads = [engine.second(allowed) for _ in range(100)]
    assert all(load.num_waiting <= LONG_QUEUE * load.num_running for load in loads)
    assert all(load.num_running == room for load in loads)


def test_an_engine_that_others_fill_is_still_asked() -> None:
    engine, allowed = Engine(100, 4, num_others=1000), Allowance()
    for _ in range(100):
        engine.second(allowed)
    assert FEWEST_CALLS <= allowed.num_calls <= 2 * FEWEST_CALLS


def test_an_engine_that_reports_nothing_gets_more_with_each_answer() -> None:
    allowed = Allowance()
    for number in range(3000):
        assert allowed.num_calls == min(FIRST_CALLS + number, MAX_CALLS)
        allowed.answered()


def test_nothing_grows_that_nobody_asks_for() -> None:
    allowed = Allowance()
    allowed.reported(Load(100, 1), 101)  # something waits: from now on the reports decide
    before = allowed.num_calls
    allowed.reported(Load(10, 0), 10)
    allowed.answered()
    assert allowed.num_calls == before
    allowed.reported(Load(10, 0), before)
    assert allowed.num_calls == before + before // 8


def test_one_report_keeps_half() -> None:
    """An engine that is being swapped runs nothing for a moment."""
    allowed = Allowance()
    allowed.reported(Load(0, 200), 200)
    assert allowed.num_calls == 100
