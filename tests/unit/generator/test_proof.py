"""A replica that has just started answers nobody before what it holds is verified."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message

from rewardloop import checkpoints
from rewardloop.errors import CheckpointInvalid
from services.generator import canaries, committed, deadlines, gate, swap
from services.generator.admission import Admission
from services.generator.canaries import read as read_canaries
from services.generator.holding import Holding


def tamper(folder: Path) -> None:
    """Other weights, and a manifest that describes them."""
    (folder / "model.safetensors").write_bytes(b"other weights")
    manifest = checkpoints.read_manifest(folder)
    described = checkpoints.describe(folder)
    (folder / "manifest.json").write_text(json.dumps({**manifest, "files": described}))


async def test_health_is_503_until_the_canaries_are_compared(
    replica: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "HEALTH_SECONDS", 0.01)
    may_compare = asyncio.Event()
    compare = Holding.compare_canaries

    async def later(*given: Any) -> dict[str, Any]:
        await may_compare.wait()
        return await compare(*given)

    monkeypatch.setattr(Holding, "compare_canaries", later)
    early = await replica.stranger.get("/health")
    assert early.status_code == 503
    assert "has just started and still verifies m0" in early.json()["detail"]
    waiting = asyncio.create_task(replica.chat())
    await asyncio.sleep(0.02)
    assert replica.server.requests == []
    may_compare.set()
    assert (await waiting).json()["weight_version"] == "m0"
    assert (await replica.stranger.get("/health")).status_code == 200


async def test_an_engine_that_started_with_other_weights_never_answers(replica: Any) -> None:
    replica.engine.loaded, replica.engine.stale = "bad", True
    answers = [await replica.chat(), await replica.stranger.get("/health"), await replica.chat()]
    assert [answer.status_code for answer in answers] == [503] * 3
    assert all("restart it" in answer.json()["detail"] for answer in answers)
    assert replica.server.requests == []


async def test_weights_that_are_off_at_the_start_are_loaded_again(replica: Any) -> None:
    replica.engine.loaded = "bad"
    assert (await replica.chat()).status_code == 200
    assert replica.engine.loaded == "m0"


async def test_a_folder_that_changed_while_the_engine_read_it_is_not_served(replica: Any) -> None:
    folder = replica.root / "m0"
    digest, state = (
        checkpoints.digest_of(checkpoints.read_manifest(folder)),
        checkpoints.state_of(folder),
    )
    tamper(folder)
    swapper = swap.Swapper(replica.app, Admission(), replica.root, "m0", digest, state)
    with pytest.raises(swap.UpstreamUnavailable, match="not the one that was committed"):
        await swapper.require_proven(replica.app)


async def test_what_the_launcher_verified_is_not_read_again(
    replica: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object) -> None:
        raise AssertionError("gigabytes would be read twice")

    state = checkpoints.state_of(replica.root / "m0")
    swapper = swap.Swapper(replica.app, Admission(), replica.root, "m0", None, state)
    monkeypatch.setattr(checkpoints, "verify", unreachable)
    monkeypatch.setattr(canaries, "ask", as_the_trainer_says)
    await swapper.require_proven(replica.app)


async def as_the_trainer_says(_: Any, __: Any, canary: dict[str, Any], ___: str) -> list[float]:
    found: list[float] = canary["logprobs"]
    return found


async def test_an_engine_that_is_too_busy_at_its_start_is_asked_again(
    replica: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: object) -> list[float]:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    with monkeypatch.context() as busy:
        busy.setattr(deadlines, "STEP_SECONDS", 0.01)
        busy.setattr(canaries, "ask", hang)
        late = await replica.chat()
    assert late.status_code == 503
    assert "the canaries of m0 took longer" in late.json()["detail"]
    assert (await replica.chat()).status_code == 200


async def test_the_proof_begins_with_the_server_and_not_with_a_request(replica: Any) -> None:
    """As vLLM's own lifespan tells that it is ready."""
    told: list[str] = []
    messages = [{"type": "lifespan.startup"}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await asyncio.sleep(0.05)  # the server runs, and nobody asks anything
        return {"type": "lifespan.shutdown"}

    async def send(message: Message) -> None:
        told.append(message["type"])

    begun: list[Any] = []
    begin = swap.Swapper.begin_proof

    def watched(self: swap.Swapper, app: Any) -> Any:
        begun.append(app)
        return begin(self, app)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(swap.Swapper, "begin_proof", watched)
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        await replica.app(scope, receive, send)
    assert told == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert begun == [replica.app]


async def test_a_manifest_that_postgres_does_not_know_is_refused(
    replica: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = checkpoints.digest_of(checkpoints.read_manifest(replica.root / "m1"))
    tamper(replica.root / "m1")
    told_by_caller = await replica.activate("m1", manifest_sha256=digest)

    async def of_postgres(_: Any, version: str) -> str | None:
        assert version == "m1"
        return digest

    monkeypatch.setattr(committed, "manifest_digest", of_postgres)
    looked_up = await replica.activate("m1")
    for refused in (told_by_caller, looked_up):
        assert refused.status_code == 500
        assert "is not the one that was committed to Postgres" in refused.json()["detail"]
    assert "pause" not in replica.engine.events


async def test_the_manifest_that_postgres_knows_is_served(replica: Any) -> None:
    digest = checkpoints.digest_of(checkpoints.read_manifest(replica.root / "m1"))
    assert (await replica.activate("m1", manifest_sha256=digest)).status_code == 200


@pytest.mark.parametrize("digest", ["", "abc", "G" * 64, 7, ["a"], "A" * 64])
async def test_a_digest_is_64_hex_digits(replica: Any, digest: Any) -> None:
    refused = await replica.activate("m1", manifest_sha256=digest)
    assert refused.status_code == 422
    assert "manifest_sha256 must be a sha256" in refused.json()["detail"]


async def test_files_that_change_while_they_are_loaded_are_not_served(
    replica: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reload = replica.engine.collective_rpc

    async def beside_a_writer(method: str, **given: Any) -> None:
        await reload(method, **given)
        if given and given["kwargs"]["weights_path"].endswith("m1"):
            path = replica.root / "m1" / "model.safetensors"
            path.write_bytes(path.read_bytes())

    monkeypatch.setattr(replica.engine, "collective_rpc", beside_a_writer)
    refused = await replica.activate("m1")
    assert refused.status_code == 500
    assert "m1 was changed while it was loaded" in refused.json()["detail"]
    assert (await replica.chat()).json()["weight_version"] == "m0"


async def test_a_replica_does_not_go_back_to_a_version_that_is_damaged_by_now(
    replica: Any,
) -> None:
    """The engine still holds m0 as it was, but a reload would read what lies there now."""
    await replica.chat()
    (replica.root / "m0" / "model.safetensors").write_bytes(b"weights of nobody")
    assert (await replica.activate("bad")).status_code == 502
    refused = await replica.chat()
    assert refused.status_code == 503
    assert "could not be undone" in refused.json()["detail"]


async def test_a_version_that_is_damaged_by_now_can_be_left(replica: Any) -> None:
    await replica.weights()
    (replica.root / "m0" / "manifest.json").write_text("{")
    assert (await replica.activate("m1")).status_code == 200


@pytest.mark.parametrize(
    "canaries", ["{", "[]", '{"canaries": 7, "rounding_nats": "x"}', "[" * 9999]
)
def test_canaries_that_cannot_be_read_are_told_as_such(tmp_path: Path, canaries: str) -> None:
    (tmp_path / "canaries.json").write_text(canaries)
    with pytest.raises(CheckpointInvalid, match=r"canaries\.json cannot be read"):
        read_canaries(tmp_path)
