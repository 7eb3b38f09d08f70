"""One key, one answer: kept, joined, made anew, bounded."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from rewardloop import kept_answers
from rewardloop.clients.latency import NUM_NEEDED
from rewardloop.errors import Conflict, InvalidInput, UpstreamUnavailable
from rewardloop.kept_answers import MAX_MAKINGS, KeptAnswers


class Maker:
    """Makes the answers 'a1', 'a2', ... each once it `may`; those in `fails` are errors."""

    def __init__(self, *, ready: bool = True, fails: frozenset[int] = frozenset()) -> None:
        self.num_begun = 0
        self.num_cancelled = 0
        self.may: dict[int, asyncio.Event] = {}
        self._ready, self._fails = ready, fails

    async def __call__(self) -> str:
        self.num_begun += 1
        number = self.num_begun
        may = self.may.setdefault(number, asyncio.Event())
        try:
            if not self._ready:
                await may.wait()
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        if number in self._fails:
            raise UpstreamUnavailable(f"failure {number}")
        return f"a{number}"

    async def begun(self, count: int) -> None:
        async with asyncio.timeout(60):
            while self.num_begun < count:
                await asyncio.sleep(0)


def keeper() -> KeptAnswers[str]:
    return KeptAnswers(len)


async def test_who_asks_again_is_given_the_same() -> None:
    kept, make = keeper(), Maker()
    assert [await kept.get("k", b"q", make) for _ in range(3)] == ["a1"] * 3
    assert await kept.get("other", b"q", make) == "a2"


async def test_who_comes_while_it_is_made_waits_for_the_same() -> None:
    kept, make = keeper(), Maker(ready=False)
    asked = [asyncio.create_task(kept.get("k", b"q", make)) for _ in range(3)]
    await make.begun(1)
    make.may[1].set()
    assert await asyncio.gather(*asked) == ["a1"] * 3
    assert make.num_begun == 1


async def test_what_was_begun_is_finished_though_its_caller_went() -> None:
    kept, make = keeper(), Maker(ready=False)
    gone = asyncio.create_task(kept.get("k", b"q", make))
    await make.begun(1)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    make.may[1].set()
    assert await kept.get("k", b"q", make) == "a1"
    assert (make.num_begun, make.num_cancelled) == (1, 0)


async def test_what_nobody_waits_for_is_given_up_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kept_answers, "ABANDONED_SECONDS", 0.01)
    kept, make = keeper(), Maker(ready=False)
    gone = asyncio.create_task(kept.get("k", b"q", make))
    await make.begun(1)
    gone.cancel()
    async with asyncio.timeout(60):
        while not make.num_cancelled:
            await asyncio.sleep(0.005)
    later = asyncio.create_task(kept.get("k", b"q", make))
    await make.begun(2)
    make.may[2].set()
    assert await later == "a2"


@pytest.mark.parametrize("first_ready", [1, 2])
async def test_an_overdue_answer_is_made_anew_and_the_first_to_be_ready_counts(
    first_ready: int,
) -> None:
    kept, make = keeper(), Maker(ready=False)
    first = asyncio.create_task(kept.get("k", b"q", make))
    await make.begun(1)
    second = asyncio.create_task(kept.get("k", b"q", make, anew=True))
    await make.begun(2)
    make.may[first_ready].set()
    assert await asyncio.gather(first, second) == [f"a{first_ready}"] * 2
    assert await kept.get("k", b"q", make, anew=True) == f"a{first_ready}"  # it is there
    assert (make.num_begun, make.num_cancelled) == (2, 1)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(kept_answers, "time", clock)
    monkeypatch.setattr(kept_answers, "LOOK_SECONDS", 0.001)
    return clock


async def after_calls_of_five_seconds(
    clock: Clock, kept: KeptAnswers[str], make: Maker, kind: str = ""
) -> None:
    for number in range(1, NUM_NEEDED + 1):
        earlier = asyncio.create_task(kept.get(f"k{number}", b"q", make, kind=kind))
        await make.begun(number)
        clock.now += 5.0
        make.may[number].set()
        await earlier


async def hanging(kept: KeptAnswers[str], make: Maker, num_begun: int) -> asyncio.Task[str]:
    asked = asyncio.create_task(kept.get("k", b"q", make))
    await make.begun(num_begun)
    return asked


@pytest.mark.parametrize(("waited", "num_begun"), [(14.9, 1), (15.1, 2)])
async def test_what_is_overdue_is_made_anew_unasked(
    clock: Clock, waited: float, num_begun: int
) -> None:
    kept, make = keeper(), Maker(ready=False)
    await after_calls_of_five_seconds(clock, kept, make)  # so the deadline is at 15
    asked = await hanging(kept, make, NUM_NEEDED + 1)
    clock.now += waited
    await asyncio.sleep(0.05)
    assert make.num_begun == NUM_NEEDED + num_begun  # and not once for every look
    make.may[NUM_NEEDED + num_begun].set()
    assert await asked == f"a{NUM_NEEDED + num_begun}"


async def test_there_is_an_end_to_making_it_anew(clock: Clock) -> None:
    kept, make = keeper(), Maker(ready=False)
    await after_calls_of_five_seconds(clock, kept, make)
    asked = await hanging(kept, make, NUM_NEEDED + 1)
    for _ in range(6):
        clock.now += 20.0
        await asyncio.sleep(0.01)
    assert make.num_begun == NUM_NEEDED + MAX_MAKINGS
    make.may[NUM_NEEDED + 1].set()
    assert await asked == f"a{NUM_NEEDED + 1}"


async def test_what_nobody_waits_for_is_not_made_anew(clock: Clock) -> None:
    kept, make = keeper(), Maker(ready=False)
    await after_calls_of_five_seconds(clock, kept, make)
    asked = await hanging(kept, make, NUM_NEEDED + 1)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    clock.now += 100.0
    await asyncio.sleep(0.05)
    assert make.num_begun == NUM_NEEDED + 1


async def test_what_takes_long_by_its_kind_is_not_overdue(clock: Clock) -> None:
    kept, make = keeper(), Maker(ready=False)
    await after_calls_of_five_seconds(clock, kept, make, kind="short")
    asked = await hanging(kept, make, NUM_NEEDED + 1)
    clock.now += 200.0
    await asyncio.sleep(0.05)
    assert make.num_begun == NUM_NEEDED + 1
    make.may[NUM_NEEDED + 1].set()
    await asked


async def test_a_failure_is_everybodys_and_not_kept() -> None:
    kept, make = keeper(), Maker(ready=False, fails=frozenset({1}))
    asked = [asyncio.create_task(kept.get("k", b"q", make)) for _ in range(2)]
    await make.begun(1)
    make.may[1].set()
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert [str(error) for error in found] == ["failure 1"] * 2
    make.may[2] = asyncio.Event()
    make.may[2].set()
    assert await kept.get("k", b"q", make) == "a2"


async def test_a_failure_beside_another_try_is_nobodys() -> None:
    kept, make = keeper(), Maker(ready=False, fails=frozenset({1}))
    first = asyncio.create_task(kept.get("k", b"q", make))
    await make.begun(1)
    second = asyncio.create_task(kept.get("k", b"q", make, anew=True))
    await make.begun(2)
    make.may[1].set()
    await asyncio.sleep(0.01)
    make.may[2].set()
    assert await asyncio.gather(first, second) == ["a2", "a2"]


async def test_a_key_asks_one_thing() -> None:
    kept, make = keeper(), Maker()
    await kept.get("k", b"q", make)
    with pytest.raises(Conflict, match="k was sent with another body"):
        await kept.get("k", b"another", make)
    with pytest.raises(InvalidInput, match="200 characters"):
        await kept.get("k" * 201, b"q", make)


async def test_what_no_longer_holds_is_made_again() -> None:
    kept, make = keeper(), Maker()
    assert await kept.get("k", b"q", make) == "a1"
    assert await kept.get("k", b"q", make, still_holds=lambda answer: answer != "a1") == "a2"
    assert await kept.get("k", b"q", make) == "a2"


async def ask(kept: KeptAnswers[str], keys: str, make: Callable[[], Awaitable[str]]) -> list[str]:
    return [await kept.get(key, b"q", make) for key in keys]


async def test_number_and_bytes_and_age_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_answers, "MAX_ANSWERS", 2)
    kept, make = keeper(), Maker()
    assert await ask(kept, "abcba", make) == ["a1", "a2", "a3", "a2", "a4"]
    monkeypatch.setattr(kept_answers, "MAX_BYTES", 3)  # of answers of two bytes
    assert await ask(kept, "cac", make) == ["a5", "a6", "a7"]
    monkeypatch.setattr(kept_answers, "KEEP_SECONDS", -1.0)
    assert await ask(kept, "xxx", make) == ["a8", "a9", "a10"]


async def test_what_is_not_worth_keeping_is_only_given_to_those_who_wait() -> None:
    kept: KeptAnswers[str] = KeptAnswers(lambda _: None)
    make = Maker()
    assert [await kept.get("k", b"q", make) for _ in range(2)] == ["a1", "a2"]


async def test_an_answer_that_takes_for_ever_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_answers, "MAKE_SECONDS", 0.01)
    with pytest.raises(UpstreamUnavailable, match="no answer was made"):
        await keeper().get("k", b"q", Maker(ready=False))
