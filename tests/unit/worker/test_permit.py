"""What a task does when it hears that its work was stopped."""

import asyncio

import pytest

from rewardloop.errors import UpstreamUnavailable
from services.worker import permit
from services.worker.permit import Permit, Word, permitted


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permit, "CHECK_SECONDS", 0.001)


class Told:
    """Says the next word at each look, the last one for ever; an error is raised."""

    def __init__(self, *words: Word | Exception) -> None:
        self.words = list(words)
        self.num_looks = 0

    async def __call__(self) -> Word:
        self.num_looks += 1
        word = self.words.pop(0) if len(self.words) > 1 else self.words[0]
        if isinstance(word, Exception):
            raise word
        return word


async def for_ever() -> None:
    await asyncio.Event().wait()


async def looked(told: Told, times: int) -> None:
    async with asyncio.timeout(60):
        while told.num_looks < times:
            await asyncio.sleep(0.001)


async def test_what_is_dropped_ends_without_an_error_and_cleans_up() -> None:
    cleaned = []
    async with asyncio.timeout(60), permitted(Told(Word.GO_ON, Word.DROP)) as found:
        try:
            await for_ever()
        finally:
            await asyncio.sleep(0)  # as leases are given back
            cleaned.append(True)
    assert (cleaned, found.is_dropped, found.may_take_more) == ([True], True, False)
    await asyncio.sleep(0)  # the task that was cancelled is not any more


async def test_a_pause_is_heard_and_cancels_nothing() -> None:
    told = Told(Word.GO_ON, Word.FINISH)
    async with permitted(told) as found:
        assert found.may_take_more
        await looked(told, 4)
        assert not found.may_take_more
        assert not found.is_dropped


async def test_a_pause_may_be_withdrawn() -> None:
    told = Told(Word.FINISH, Word.FINISH, Word.GO_ON)
    async with permitted(told) as found:
        await looked(told, 4)
        assert found.may_take_more


async def test_a_swap_is_not_dropped_halfway() -> None:
    told, done = Told(Word.DROP), []
    async with asyncio.timeout(60), permitted(told) as found:
        with found.undisturbed():
            await looked(told, 3)
            assert not found.may_take_more
            done.append("swap")
        await for_ever()
    assert done == ["swap"]
    assert found.is_dropped


async def test_another_cancellation_is_not_swallowed() -> None:
    told = Told(Word.GO_ON)

    async def work() -> None:
        async with permitted(told):
            await for_ever()

    task = asyncio.create_task(work())
    await looked(told, 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_database_that_is_away_stops_nothing() -> None:
    told = Told(UpstreamUnavailable("away"), Word.GO_ON)
    async with permitted(told) as found:
        await looked(told, 3)
        assert found.may_take_more


async def test_an_error_of_the_work_is_raised_as_it_is() -> None:
    with pytest.raises(KeyError, match="weights"):
        async with permitted(Told(Word.GO_ON)):
            raise KeyError("weights")


def test_a_permit_that_nobody_watches_lets_work_go_on() -> None:
    assert Permit().may_take_more
