"""New weights in a running engine: verified, or undone, or out of service."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from rewardloop.errors import CheckpointInvalid, SwapFailed
from services.generator import admission, canaries, deadlines, swap
from services.generator.admission import Admission
from services.generator.canaries import read as read_canaries

API_KEY = "api-key-of-16-chars"  # of the fixture


async def post_by_hand(replica: Any, body: Any) -> None:
    """httpx's transport would read a body whole before it calls the app."""

    async def receive() -> Any:
        return {"type": "http.request", "body": await anext(body), "more_body": True}

    async def send(_: Any) -> None:
        raise AssertionError("half a request has no answer")

    headers = [(b"authorization", f"Bearer {API_KEY}".encode())]
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}
    await replica.app(scope, receive, send)


async def test_a_swap_reloads_verifies_and_reports(
    replica: Any, metric: Callable[..., float]
) -> None:
    before = metric("rewardloop_swaps_total", outcome="succeeded")
    answer = await replica.activate("m1")
    assert answer.status_code == 200
    report = answer.json()
    assert report["version"] == "m1"
    assert report["checksums"] == {"layer.0": "sum of m1", "layer.1": "sum of m1"}
    assert report["canary"] == {
        "mean_difference": pytest.approx(0.02),
        "max_difference": pytest.approx(0.04),
        "bound": 0.05,
        "num_tokens": 2,
    }
    expected = ["announce m0", "pause", "reload m1", "pack heads", "announce m1", "resume"]
    assert replica.engine.events == expected
    assert (await replica.chat()).json()["weight_version"] == "m1"
    assert metric("rewardloop_swaps_total", outcome="succeeded") == before + 1


async def test_weights_tell_the_version_and_checksums(replica: Any) -> None:
    assert await replica.weights() == {
        "version": "m0",
        "checksums": {"layer.0": "sum of m0", "layer.1": "sum of m0"},
    }


async def test_the_active_version_is_verified_and_not_loaded_again(replica: Any) -> None:
    answer = await replica.activate("m0")
    assert answer.json()["canary"]["mean_difference"] == 0
    assert replica.engine.events == ["announce m0"]


async def test_requests_in_flight_end_under_the_weights_they_began_with(replica: Any) -> None:
    replica.server.may_answer.clear()
    running = asyncio.create_task(replica.chat())
    await replica.server.arrived.wait()
    swapping = asyncio.create_task(replica.activate("m1"))
    await asyncio.sleep(0.02)
    assert "reload m1" not in replica.engine.events
    replica.server.may_answer.set()
    assert (await running).json()["weight_version"] == "m0"
    assert (await swapping).status_code == 200


async def test_requests_wait_for_a_swap_and_meet_the_new_weights(replica: Any) -> None:
    replica.engine.may_reload.clear()
    swapping = asyncio.create_task(replica.activate("m1"))
    await replica.engine.reloading.wait()
    waiting = [asyncio.create_task(replica.chat()) for _ in range(3)]
    await asyncio.sleep(0.02)
    assert replica.server.requests == []
    replica.engine.may_reload.set()
    assert (await swapping).status_code == 200
    answers = await asyncio.gather(*waiting)
    assert [answer.json()["weight_version"] for answer in answers] == ["m1"] * 3


async def test_two_swaps_take_turns(replica: Any) -> None:
    answers = await asyncio.gather(replica.activate("m1"), replica.activate("m0"))
    assert [answer.json()["version"] for answer in answers] == ["m1", "m0"]
    reloads = [event for event in replica.engine.events if event in ("pause", "resume")]
    assert reloads == ["pause", "resume", "pause", "resume"]


async def test_requests_that_do_not_end_in_time_are_ended_and_may_be_repeated(
    replica: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fake server does not look whether its client has gone, so it is made to stop."""
    monkeypatch.setenv("REWARDLOOP_SWAP_DRAIN_SECONDS", "0.02")
    monkeypatch.setattr(admission, "END_SECONDS", 0.02)
    replica.server.may_answer.clear()
    running = asyncio.create_task(replica.chat())
    await replica.server.arrived.wait()
    swapped = await replica.activate("m1")
    assert (swapped.status_code, swapped.json()["num_ended"]) == (200, 1)
    ended = await running
    assert (ended.status_code, ended.headers["retry-after"]) == (503, "2")
    assert "it was ended, so that new weights could be loaded" in ended.json()["detail"]
    replica.server.may_answer.set()
    assert (await replica.chat()).json()["weight_version"] == "m1"


async def test_a_stream_that_is_ended_says_so_and_does_not_look_whole(
    replica: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REWARDLOOP_SWAP_DRAIN_SECONDS", "0.02")
    monkeypatch.setattr(admission, "END_SECONDS", 0.02)

    half_sent = asyncio.Event()

    async def first_half(_: Any) -> Any:
        yield 'data: {"id": "x", "choices": []}\n\n'
        half_sent.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(replica.server, "_chunks", first_half)
    running = asyncio.create_task(replica.chat(stream=True))
    await half_sent.wait()
    assert (await replica.activate("m1")).status_code == 200
    first, last, nothing = (await running).text.split("\n\n")
    assert json.loads(first.removeprefix("data: "))["weight_version"] == "m0"
    error = json.loads(last.removeprefix("data: "))["error"]
    assert (error["code"], error["type"], nothing) == (503, "upstream-unavailable", "")


async def test_half_a_request_holds_no_swap_up(
    replica: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REWARDLOOP_SWAP_DRAIN_SECONDS", "5")
    sent_half = asyncio.Event()

    async def body() -> Any:
        yield b'{"messages": '
        sent_half.set()
        await asyncio.Event().wait()

    half = asyncio.create_task(post_by_hand(replica, body()))
    await sent_half.wait()
    answer = await asyncio.wait_for(replica.activate("m1"), 4)
    assert (answer.status_code, answer.json()["num_ended"]) == (200, 0)
    half.cancel()


async def test_a_canary_mismatch_goes_back_to_the_old_version(
    replica: Any, metric: Callable[..., float]
) -> None:
    before = metric("rewardloop_swaps_total", outcome="failed")
    refused = await replica.activate("bad")
    assert refused.status_code == 502
    assert refused.json()["type"] == "urn:rewardloop:error:swap-failed"
    assert "0.1000 nats a token" in refused.json()["detail"]
    assert replica.engine.loaded == "m0"
    assert (await replica.weights())["version"] == "m0"
    assert (await replica.chat()).json()["weight_version"] == "m0"
    assert not replica.engine.paused
    assert metric("rewardloop_swaps_total", outcome="failed") == before + 1


async def test_requests_that_waited_for_a_failed_swap_meet_the_old_weights(replica: Any) -> None:
    replica.engine.may_reload.clear()
    swapping = asyncio.create_task(replica.activate("bad"))
    await replica.engine.reloading.wait()
    waiting = asyncio.create_task(replica.chat())
    await asyncio.sleep(0.01)
    replica.engine.may_reload.set()
    assert (await swapping).status_code == 502
    assert (await waiting).json()["weight_version"] == "m0"


async def test_an_engine_that_serves_stale_weights_is_found_out(
    replica: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "services.generator.canaries.CANARY_BOUND", 10
    )  # canaries alone would not tell
    replica.engine.stale = True
    refused = await replica.activate("m1")
    assert refused.status_code == 502
    assert "stale weights" in refused.json()["detail"]
    assert (await replica.weights())["version"] == "m0"


async def test_the_same_weights_under_another_name_are_no_failure(replica: Any) -> None:
    path = replica.root / "m1"
    for name in ("model.safetensors", "canaries.json", "manifest.json"):
        text = (replica.root / "m0" / name).read_bytes()
        (path / name).write_bytes(text.replace(b'"m0"', b'"m1"') if "manifest" in name else text)
    replica.engine.stale = True
    answer = await replica.activate("m1")
    assert answer.status_code == 200
    assert answer.json()["version"] == "m1"


async def test_a_version_that_cannot_be_loaded_goes_back_too(replica: Any) -> None:
    replica.engine.unloadable = {"m1"}
    refused = await replica.activate("m1")
    assert refused.status_code == 502
    assert "no shard of m1 fits" in refused.json()["detail"]
    assert not replica.engine.paused
    assert (await replica.weights())["version"] == "m0"


async def test_a_reload_that_hangs_is_ended(replica: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "LOAD_SECONDS", 0.02)
    reload = replica.engine.collective_rpc

    async def hang_on_m1(method: str, **given: Any) -> None:
        if given and given["kwargs"]["weights_path"].endswith("m1"):
            await asyncio.Event().wait()
        await reload(method, **given)

    monkeypatch.setattr(replica.engine, "collective_rpc", hang_on_m1)
    refused = await replica.activate("m1")
    assert refused.status_code == 503
    assert refused.json()["type"] == "urn:rewardloop:error:upstream-unavailable"
    assert "loading m1 took longer than 0 s" in refused.json()["detail"]
    assert (await replica.chat()).json()["weight_version"] == "m0"


async def test_a_large_checkpoint_has_more_time_to_load(
    replica: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload that takes longer than a small model may, and no longer than this one."""
    monkeypatch.setattr(deadlines, "LOAD_SECONDS", 0.0)
    monkeypatch.setattr(deadlines, "BYTES_PER_SECOND", 1.0)  # hundreds of bytes: minutes
    reload = replica.engine.collective_rpc

    async def reload_slowly(method: str, **given: Any) -> None:
        await asyncio.sleep(0.02)
        await reload(method, **given)

    monkeypatch.setattr(replica.engine, "collective_rpc", reload_slowly)
    assert (await replica.activate("m1")).status_code == 200


async def test_canaries_that_are_not_answered_in_time_are_asked_for_again_later(
    replica: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy engine is no broken one: nothing is loaded, and it goes on answering."""

    async def hang(*_: object) -> list[float]:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    await replica.chat()  # which begins with the proof of m0
    monkeypatch.setattr(deadlines, "STEP_SECONDS", 0.02)
    monkeypatch.setattr(canaries, "ask", hang)
    refused = await replica.activate("m0")
    assert refused.status_code == 503
    assert "the canaries of m0 took longer than" in refused.json()["detail"]
    assert "pause" not in replica.engine.events
    assert (await replica.chat()).status_code == 200


async def test_an_engine_that_lost_its_weights_loads_them_again(replica: Any) -> None:
    replica.engine.loaded = "bad"
    answer = await replica.activate("m0")
    assert answer.status_code == 200
    assert answer.json()["checksums"] == {"layer.0": "sum of m0", "layer.1": "sum of m0"}
    assert answer.json()["canary"]["mean_difference"] == 0
    assert (await replica.chat()).status_code == 200


async def test_an_engine_that_cannot_be_mended_goes_out_of_service(replica: Any) -> None:
    replica.engine.loaded, replica.engine.stale = "bad", True
    refused = [
        await replica.activate("m0"),
        await replica.chat(),
        await replica.stranger.get("/health"),
    ]
    assert [answer.status_code for answer in refused] == [503] * 3
    assert all("m0 could not be mended" in answer.json()["detail"] for answer in refused)
    assert replica.server.requests == []


async def test_a_swap_that_cannot_be_undone_takes_the_replica_out(replica: Any) -> None:
    replica.engine.unloadable = {"m1", "m0"}
    replica.engine.may_reload.clear()
    swapping = asyncio.create_task(replica.activate("m1"))
    await replica.engine.reloading.wait()
    waiting = asyncio.create_task(replica.chat())
    await asyncio.sleep(0.01)
    replica.engine.may_reload.set()
    assert (await swapping).status_code == 502
    refused = [
        await waiting,
        await replica.chat(),
        await replica.api.post("/v1/completions", json={"prompt": "Hi"}),
        await replica.activate("m1"),
        await replica.stranger.get("/health"),
    ]
    assert [answer.status_code for answer in refused] == [503] * 5
    assert all("restart it" in answer.json()["detail"] for answer in refused)
    assert replica.server.requests == []


@pytest.mark.parametrize("name", ["model.safetensors", "canaries.json"])
async def test_changed_files_are_not_loaded(replica: Any, name: str) -> None:
    with (replica.root / "m1" / name).open("a") as file:
        file.write(" ")
    refused = await replica.activate("m1")
    assert refused.status_code == 500
    assert refused.json()["type"] == "urn:rewardloop:error:checkpoint-invalid"
    assert name in refused.json()["detail"]
    assert "pause" not in replica.engine.events


async def test_a_broken_manifest_is_told_as_such(replica: Any) -> None:
    (replica.root / "m1" / "manifest.json").write_text("{")
    refused = await replica.activate("m1")
    assert refused.json()["type"] == "urn:rewardloop:error:checkpoint-invalid"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -100.0])
async def test_logprobs_that_are_no_numbers_fail(
    replica: Any, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    async def broken(*_: object) -> list[float]:
        return [value, -2.0]

    monkeypatch.setattr(canaries, "ask", broken)
    refused = await replica.activate("m1")
    assert refused.status_code == 502


@pytest.mark.parametrize("canaries", [None, []])
def test_a_checkpoint_without_canaries_is_refused(tmp_path: Any, canaries: Any) -> None:
    if canaries is not None:
        (tmp_path / "canaries.json").write_text(json.dumps({"canaries": canaries}))
    with pytest.raises(CheckpointInvalid, match="publish it again"):
        read_canaries(tmp_path)


@pytest.mark.parametrize(
    ("said", "bound"),
    [({}, 0.05), ({"rounding_nats": 0.02}, 0.05), ({"rounding_nats": 0.1}, 0.15)],
)
def test_the_bound_grows_with_the_checkpoints_own_rounding(
    tmp_path: Any, said: dict[str, float], bound: float
) -> None:
    (tmp_path / "canaries.json").write_text(json.dumps({**said, "canaries": [{}]}))
    assert read_canaries(tmp_path)[1] == pytest.approx(bound)


async def test_an_engine_that_refuses_canaries_fails_the_swap(
    replica: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 400, "headers": []})
        await send({"type": "http.response.body", "body": b"prompt too long"})

    swapper = swap.Swapper(refuse, Admission(), replica.root, "m0")
    with pytest.raises(SwapFailed, match="prompt too long"):
        await swapper.activate(replica.app, "m0")
