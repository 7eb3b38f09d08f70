"""Whose failure a failure is, and how many items go on beside one that fails."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from rewardloop.errors import (
    Conflict,
    PromptTooLong,
    RewardloopError,
    Unauthorized,
    UnreadableAnswer,
    UpstreamFailed,
    UpstreamMismatch,
    UpstreamUnavailable,
)
from services.worker import attempts
from services.worker.attempts import SEVERAL, AskFailed, Fault, Servers, all_done, work_through

BROKEN = UpstreamFailed("EngineCore encountered an issue.")
PAGE = UnreadableAnswer("something else than JSON")
AWAY = UpstreamUnavailable("nobody listens")
FULL = PromptTooLong("2048 tokens")


async def answers() -> str:
    return "hello"


def fails(error: Exception) -> Callable[[], Awaitable[str]]:
    async def ask() -> str:
        raise error

    return ask


async def failure(servers: Servers, error: Exception) -> AskFailed:
    with pytest.raises(AskFailed) as caught:
        await servers.asked("engine", fails(error)())
    return caught.value


@pytest.mark.parametrize("error", [BROKEN, PAGE, AWAY, Unauthorized("no"), UpstreamMismatch("404")])
async def test_while_the_server_answers_the_failure_is_the_items(error: RewardloopError) -> None:
    servers = Servers({"engine": answers})
    for _ in range(SEVERAL + 1):
        found = await servers.fault_of(await failure(servers, error))
        assert found == (Fault.ITEM, error)


async def test_a_server_that_refuses_the_probe_is_there() -> None:
    servers = Servers({"engine": fails(FULL)})
    assert (await servers.fault_of(await failure(servers, BROKEN)))[0] is Fault.ITEM


@pytest.mark.parametrize(
    ("of_item", "of_probe", "told"),
    [(BROKEN, BROKEN, BROKEN), (AWAY, AWAY, AWAY), (PAGE, AWAY, AWAY), (BROKEN, PAGE, BROKEN)],
)
async def test_an_error_that_may_pass_is_the_servers_at_once(
    of_item: RewardloopError, of_probe: RewardloopError, told: RewardloopError
) -> None:
    """Of two errors the one that may pass is told, for the other one would end an iteration."""
    servers = Servers({"engine": fails(of_probe)})
    assert await servers.fault_of(await failure(servers, of_item)) == (Fault.SERVER, told)


@pytest.mark.parametrize("error", [PAGE, Unauthorized("no"), UpstreamMismatch("404")])
async def test_a_server_is_the_wrong_one_only_after_several_failures(
    error: RewardloopError,
) -> None:
    servers = Servers({"engine": fails(error)})
    faults = [
        (await servers.fault_of(await failure(servers, error)))[0] for _ in range(SEVERAL // 2)
    ]
    # The probes count too, so each failure is two.
    assert faults == [Fault.UNSURE] * (SEVERAL // 2 - 1) + [Fault.SERVER]


async def test_one_success_in_between_takes_all_suspicion_away() -> None:
    servers = Servers({"engine": fails(PAGE)})
    for _ in range(SEVERAL):
        assert (await servers.fault_of(await failure(servers, PAGE)))[0] is Fault.UNSURE
        assert await servers.asked("engine", answers()) == "hello"


async def test_a_refusal_is_no_failure_and_takes_suspicion_away_too() -> None:
    servers = Servers({"engine": fails(PAGE)})
    for _ in range(SEVERAL):
        assert (await servers.fault_of(await failure(servers, PAGE)))[0] is Fault.UNSURE
        with pytest.raises(PromptTooLong):
            await servers.asked("engine", fails(FULL)())


async def test_the_other_servers_success_says_nothing() -> None:
    servers = Servers({"engine": fails(PAGE), "judge": answers})
    for _ in range(SEVERAL // 2 - 1):
        await servers.fault_of(await failure(servers, PAGE))
        await servers.asked("judge", answers())
    assert (await servers.fault_of(await failure(servers, PAGE)))[0] is Fault.SERVER


async def test_those_that_fail_at_once_share_one_probe() -> None:
    asked = []

    async def probe() -> None:
        asked.append(1)
        await asyncio.sleep(0.01)

    servers = Servers({"engine": probe})
    failed = [await failure(servers, BROKEN) for _ in range(32)]
    await asyncio.gather(*(servers.fault_of(one) for one in failed))
    assert len(asked) <= 2  # the second for those that came while the first was on its way


async def test_a_probe_that_hangs_is_the_servers_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "PROBE_SECONDS", 0.01)
    servers = Servers({"engine": asyncio.Event().wait})
    fault, error = await servers.fault_of(await failure(servers, PAGE))
    assert fault is Fault.SERVER
    assert "did not answer a small request" in error.message


class Items:
    """Numbers to work on; what fails is tried again at once, up to 3 times."""

    def __init__(self, num: int, work: Callable[[int], Awaitable[None]]) -> None:
        self.waiting = list(range(num))
        self.done: list[int] = []
        self.counted: dict[int, list[bool]] = {}
        self.most_at_once = 0
        self._work = work
        self._at_once = 0

    async def take(self, count: int) -> list[int]:
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        return taken

    async def seconds_until_due(self) -> float | None:
        return 0.0 if self.waiting else None

    async def work(self, item: int) -> None:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await self._work(item)
            self.done.append(item)
        finally:
            self._at_once -= 1

    async def failed(self, item: int, error: RewardloopError, *, counts: bool) -> None:
        self.counted.setdefault(item, []).append(counts)
        if self.counted[item].count(True) < 3:
            self.waiting.append(item)


def asking(servers: Servers, poisoned: set[int], error: Exception) -> Any:
    async def work(item: int) -> None:
        await asyncio.sleep(0.001)
        await servers.asked("engine", fails(error)() if item in poisoned else answers())

    return work


async def test_items_that_fail_stop_no_others() -> None:
    servers = Servers({"engine": answers})
    items = Items(40, asking(servers, {0, 7, 39}, BROKEN))
    await work_through(items, servers, limit=4, seconds=60)
    assert sorted(items.done) == sorted(set(range(40)) - {0, 7, 39})
    assert items.counted == {0: [True] * 3, 7: [True] * 3, 39: [True] * 3}
    assert items.most_at_once == 4


async def test_a_server_that_is_away_ends_the_work_and_counts_for_no_item() -> None:
    servers = Servers({"engine": fails(AWAY)})
    items = Items(40, asking(servers, set(range(40)), AWAY))
    with pytest.raises(UpstreamUnavailable, match="nobody listens"):
        await work_through(items, servers, limit=4, seconds=60)
    assert items.counted
    assert not any(any(counts) for counts in items.counted.values())


async def test_a_wrong_server_ends_the_work_with_its_own_message() -> None:
    servers = Servers({"engine": fails(PAGE)})
    items = Items(40, asking(servers, set(range(40)), PAGE))
    with pytest.raises(UpstreamMismatch, match="something else than JSON"):
        await work_through(items, servers, limit=4, seconds=60)
    assert not any(any(counts) for counts in items.counted.values())


async def test_an_error_of_our_own_is_the_items(caplog: pytest.LogCaptureFixture) -> None:
    async def work(item: int) -> None:
        if item == 3:
            raise KeyError("weights")

    items = Items(10, work)
    await work_through(items, Servers({}), limit=2, seconds=60)
    assert items.counted == {3: [True] * 3}
    assert "an error that no code foresaw" in caplog.text  # with its traceback


@pytest.mark.parametrize("error", [AWAY, Conflict("the iteration was cancelled")])
async def test_a_database_that_is_away_and_a_lost_iteration_are_no_items_fault(
    error: RewardloopError,
) -> None:
    async def work(_: int) -> None:
        raise error

    items = Items(10, work)
    with pytest.raises(type(error)):
        await work_through(items, Servers({}), limit=2, seconds=60)
    assert items.counted == {}


async def test_nothing_is_begun_when_time_is_up() -> None:
    items = Items(10, asking(Servers({"engine": answers}), set(), BROKEN))
    await work_through(items, Servers({}), limit=2, seconds=-1)
    assert items.done == []


async def test_when_time_is_up_what_is_left_waits_for_no_pause() -> None:
    """An item that was due long ago tells how long ago, and is not waited for."""

    class Overdue(Items):
        async def seconds_until_due(self) -> float | None:
            return -1e6 if self.waiting else None

    async def slow(_: int) -> None:
        await asyncio.sleep(0.05)

    items = Overdue(10, slow)
    async with asyncio.timeout(60):
        await work_through(items, Servers({}), limit=2, seconds=0.01)
    assert len(items.done) == 2


async def test_siblings_end_before_the_first_error_is_raised() -> None:
    done = []

    async def slow() -> None:
        await asyncio.sleep(0.01)
        done.append("slow")

    async def bad() -> None:
        raise BROKEN

    with pytest.raises(UpstreamFailed):
        await all_done(bad(), slow())
    assert done == ["slow"]
