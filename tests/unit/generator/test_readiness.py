"""Ready is more than alive: whether new requests should be sent here."""

import asyncio
import json
import signal
from collections.abc import Callable
from typing import Any

import pytest

from rewardloop import checkpoints
from services.generator import candidate, leaving
from services.generator.admission import Admission
from services.generator.ending import Ending
from services.generator.leaving import Leaving
from services.generator.readiness import Readiness


async def ready(replica: Any) -> tuple[int, str]:
    answer = await replica.stranger.get("/ready")
    return answer.status_code, answer.json()["detail"] if answer.status_code != 200 else ""


@pytest.fixture
async def proven(replica: Any) -> Any:
    await replica.chat()
    return replica


async def test_a_replica_is_not_ready_before_its_first_canaries(replica: Any) -> None:
    assert await ready(replica) == (
        503,
        "not ready: this replica has just started and still verifies what it loaded",
    )
    await replica.chat()
    assert await ready(replica) == (200, "")


async def test_it_is_alive_but_not_ready_from_the_drain_until_weights_are_verified(
    proven: Any,
) -> None:
    proven.engine.may_reload.clear()
    proven.server.may_answer.clear()
    proven.server.arrived.clear()
    running = asyncio.create_task(proven.chat())
    await proven.server.arrived.wait()
    swapping = asyncio.create_task(proven.activate("m1"))
    while (await ready(proven))[0] == 200:
        await asyncio.sleep(0.01)
    assert not proven.engine.reloading.is_set(), "it waits for the answer in flight"
    proven.server.may_answer.set()
    await proven.engine.reloading.wait()
    assert await ready(proven) == (503, "not ready: this replica loads other weights")
    assert (await proven.stranger.get("/health")).status_code == 200
    proven.engine.may_reload.set()
    assert (await swapping).status_code == 200
    assert (await running).json()["weight_version"] == "m0"
    assert await ready(proven) == (200, "")


async def test_a_swap_that_failed_leaves_it_ready_on_the_version_before(proven: Any) -> None:
    assert (await proven.activate("bad")).status_code == 502
    assert await ready(proven) == (200, "")


async def test_a_replica_out_of_service_is_not_ready_and_names_no_folder(proven: Any) -> None:
    proven.engine.loaded, proven.engine.stale = "bad", True
    assert (await proven.activate("m0")).status_code == 503
    status, told = await ready(proven)
    assert (status, "out of service: restart it" in told) == (503, True)
    assert str(proven.root) not in told


async def test_requests_are_taken_while_routers_notice(proven: Any) -> None:
    swapping = asyncio.create_task(proven.activate("m1", notice_seconds=0.3))
    while (await ready(proven))[0] == 200:
        await asyncio.sleep(0.01)
    assert (await proven.chat()).json()["weight_version"] == "m0"
    assert "pause" not in proven.engine.events
    assert (await swapping).status_code == 200
    assert (await proven.chat()).json()["weight_version"] == "m1"


@pytest.mark.parametrize("notice", [-1, 61, "2", True, float("nan")])
async def test_a_notice_of_no_sense_is_refused(proven: Any, notice: Any) -> None:
    text = "NaN" if notice != notice else json.dumps(notice)
    body = f'{{"version": "m1", "notice_seconds": {text}}}'
    headers = {"content-type": "application/json"}
    answer = await proven.admin.post("/admin/activate", content=body, headers=headers)
    assert answer.status_code in (400, 422)
    assert "pause" not in proven.engine.events


async def no_swap() -> None:
    pass


def leaving_of(readiness: Readiness, door: Admission, **seconds: float) -> Leaving:
    return Leaving(readiness, door, swap_ended=no_swap, **seconds)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set where the server would have been sent SIGINT."""
    event = asyncio.Event()

    def kill(_: int, sent: signal.Signals) -> None:
        assert sent == signal.SIGINT
        event.set()

    monkeypatch.setattr(leaving.os, "kill", kill)
    return event


async def test_a_replica_that_ends_is_unready_at_once_and_loses_no_answer(
    ended: asyncio.Event,
) -> None:
    readiness, door = Readiness(), Admission()
    replica = leaving_of(readiness, door, notice_seconds=0.1, drain_seconds=5)
    may_end = asyncio.Event()

    async def request() -> None:
        async with door.request():
            await may_end.wait()

    running = asyncio.create_task(request())
    await asyncio.sleep(0)
    replica._begin()
    assert readiness.reason == "this replica ends"
    async with door.request():
        pass  # within the notice
    await asyncio.sleep(0.15)
    with pytest.raises(leaving.UpstreamUnavailable, match="this replica ends; ask another one"):
        async with door.request():
            pass
    assert not ended.is_set()
    may_end.set()
    await asyncio.wait_for(ended.wait(), 5)
    await running


async def test_what_takes_too_long_is_ended_and_told(ended: asyncio.Event) -> None:
    door = Admission()
    replica = leaving_of(Readiness(), door, notice_seconds=0, drain_seconds=0.05)

    async def request() -> None:
        ending = Ending()
        async with door.request(ending):
            await ending._asked.wait()

    running = asyncio.create_task(request())
    await asyncio.sleep(0)
    replica._begin()
    await asyncio.wait_for(ended.wait(), 5)
    with pytest.raises(leaving.UpstreamUnavailable, match="try again"):
        await running


async def test_a_second_sigterm_and_a_drain_of_nothing_end_at_once(ended: asyncio.Event) -> None:
    door = Admission()
    async with door.request():
        leaving_of(Readiness(), door, notice_seconds=9, drain_seconds=0)._begin()
        await asyncio.wait_for(ended.wait(), 1)
        ended.clear()
        replica = leaving_of(Readiness(), door, notice_seconds=9, drain_seconds=9)
        replica._begin()
        assert not ended.is_set()
        replica._begin()
        assert ended.is_set()
        assert replica._leaving is not None
        replica._leaving.cancel()


async def test_a_swap_that_runs_comes_to_its_end_first(ended: asyncio.Event) -> None:
    swapped = asyncio.Event()

    async def until_swapped() -> None:
        await swapped.wait()

    replica = Leaving(
        Readiness(), Admission(), notice_seconds=0, drain_seconds=5, swap_ended=until_swapped
    )
    replica._begin()
    await asyncio.sleep(0.05)
    assert not ended.is_set()
    swapped.set()
    await asyncio.wait_for(ended.wait(), 5)


def counting_checksums(replica: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The status of `/ready` each time that every byte of the tensors is read."""
    seen: list[int] = []
    compute = replica.engine.compute_weight_checksums

    async def counted() -> Any:
        seen.append((await ready(replica))[0])
        return await compute()

    monkeypatch.setattr(replica.engine, "compute_weight_checksums", counted)
    return seen


async def test_checksums_are_computed_while_requests_are_answered(
    proven: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of before are known from the last swap; of the first one they are computed."""
    seen = counting_checksums(proven, monkeypatch)
    assert (await proven.activate("m1")).json()["checksums"]["layer.0"] == "sum of m1"
    assert seen == [200, 200]
    assert (await proven.activate("m0")).json()["checksums"]["layer.0"] == "sum of m0"
    assert seen == [200, 200, 200]


async def test_an_update_that_no_sample_shows_is_seen_by_the_checksums_in_the_pause(
    proven: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    proven.engine.sampled = "the same"
    seen = counting_checksums(proven, monkeypatch)
    assert (await proven.activate("m1")).status_code == 200
    assert seen == [200, 503, 200]


async def test_a_replica_that_cannot_tell_its_checksums_after_a_swap_goes_back(
    proven: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asked for the swap is told that it failed, so it has to be undone."""
    compute = proven.engine.compute_weight_checksums

    async def broken_on_m1() -> Any:
        if proven.engine.loaded == "m1":
            raise RuntimeError("no memory")
        return await compute()

    monkeypatch.setattr(proven.engine, "compute_weight_checksums", broken_on_m1)
    assert (await proven.activate("m1")).status_code == 502
    assert (await proven.chat()).json()["weight_version"] == "m0"
    assert await ready(proven) == (200, "")


async def test_files_are_read_and_hashed_while_requests_are_answered(
    proven: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`activate` verifies before it says "not ready"; in the pause no file is read whole."""
    seen: list[str] = []

    def noting(what: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*given: Any, **named: Any) -> Any:
            paused = "reload m1" in proven.engine.events
            seen.append(f"{what}{' in the pause' if paused else ''}")
            return original(*given, **named)

        return noted

    for module, name in ((checkpoints, "verify"), (candidate, "read_at_start")):
        monkeypatch.setattr(module, name, noting(name, getattr(module, name)))
    assert (await proven.activate("m1")).status_code == 200
    assert seen == ["verify", "read_at_start"]
