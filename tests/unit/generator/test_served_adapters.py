"""An engine that serves adapters: nobody waits, and each answer names the version that made it."""

import asyncio
import json
from typing import Any

import pytest

from rewardloop import checkpoints
from rewardloop.errors import NotFound
from services.generator import committed
from tests.unit.generator.adapters_home import publish_adapter


@pytest.fixture
def serving(replica: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A replica on m0 with room for two of its adapters a1, a2 and a3; one is of m1."""
    monkeypatch.setenv("REWARDLOOP_ADAPTERS", "serve")
    monkeypatch.setenv("REWARDLOOP_MAX_ADAPTERS", "2")
    for version in ("a1", "a2", "a3"):
        publish_adapter(replica.root, version)
        replica.engine.logprobs[version] = -2.0
    publish_adapter(replica.root, "of-m1", base="m1")
    replica.engine.logprobs["of-m1"] = -2.0
    return replica


def loaded(replica: Any) -> set[str]:
    assert set(replica.engine.adapters.values()) == set(replica.server.models.lora_requests)
    return set(replica.engine.adapters.values())


async def test_an_adapter_becomes_current_without_a_pause(serving: Any) -> None:
    serving.server.may_answer.clear()
    running = asyncio.create_task(serving.chat())
    await serving.server.arrived.wait()
    report = (await serving.activate("a1")).json()
    assert (report["version"], report["num_ended"], report["held_seconds"]) == ("a1", 0, 0.0)
    assert report["canary"]["mean_difference"] == 0
    assert report["checksums"]["adapter of worker 1"] == "digest of a1"
    assert serving.engine.events == ["announce m0", "add adapter a1"]
    serving.server.may_answer.set()
    assert (await running).json()["weight_version"] == "m0"
    assert (await serving.chat()).json()["weight_version"] == "a1"
    assert [request["model"] for request in serving.server.requests] == ["policy", "a1"]


async def test_a_request_is_answered_by_the_version_that_it_names(serving: Any) -> None:
    assert (await serving.activate("a1")).status_code == 200
    answers = [await serving.chat(model=name) for name in ("a2", "m0", "a1", "policy")]
    assert [a.json()["weight_version"] for a in answers] == ["a2", "m0", "a1", "a1"]
    asked = [request["model"] for request in serving.server.requests]
    assert asked == ["a2", "policy", "a1", "a1"]
    assert (await serving.weights())["version"] == "a1"


async def test_streams_are_stamped_with_the_version_that_they_name(serving: Any) -> None:
    stream = await serving.chat(model="a2", stream=True)
    chunks = [json.loads(event[6:]) for event in stream.text.split("\n\n")[:-2]]
    assert {chunk["weight_version"] for chunk in chunks} == {"a2"}
    assert stream.headers["x-rewardloop-weight-version"] == "a2"


async def test_the_adapter_that_was_used_least_recently_makes_room(serving: Any) -> None:
    await serving.activate("a1")
    await serving.chat(model="a2")
    await serving.chat(model="a1")
    assert (await serving.chat(model="a3")).json()["weight_version"] == "a3"
    assert loaded(serving) == {"a1", "a3"}
    await serving.activate("a3")
    await serving.chat(model="a2")
    assert loaded(serving) == {"a3", "a2"}


async def test_an_adapter_that_answers_a_request_stays(
    serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await serving.activate("a1")
    serving.server.may_answer.clear()
    running = asyncio.create_task(serving.chat(model="a2"))
    await serving.server.arrived.wait()
    waiting = asyncio.create_task(serving.activate("a3"))
    await asyncio.sleep(0.02)
    assert loaded(serving) == {"a1", "a2"}
    serving.server.may_answer.set()
    assert (await running).json()["weight_version"] == "a2"
    assert (await waiting).status_code == 200
    assert loaded(serving) == {"a1", "a3"}


async def test_where_every_adapter_is_in_use_a_new_one_is_refused_for_now(
    serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REWARDLOOP_SWAP_DRAIN_SECONDS", "0.02")
    await serving.activate("a1")
    serving.server.may_answer.clear()
    running = asyncio.create_task(serving.chat(model="a2"))
    await serving.server.arrived.wait()
    refused = await serving.activate("a3")
    assert (refused.status_code, refused.json()["title"]) == (503, "upstream unavailable")
    assert "waiting until one of 2 adapters answers no request" in refused.json()["detail"]
    serving.server.may_answer.set()
    assert (await running).json()["weight_version"] == "a2"
    assert (await serving.chat()).json()["weight_version"] == "a1"


async def test_nobody_is_answered_by_an_adapter_before_its_canaries_agree(serving: Any) -> None:
    serving.engine.logprobs["a2"] = -3.0
    refused = [await serving.activate("a2"), await serving.chat(model="a2")]
    assert [answer.status_code for answer in refused] == [502, 502]
    assert serving.server.requests == []
    assert loaded(serving) == set()
    assert (await serving.chat()).json()["weight_version"] == "m0"


async def test_an_adapter_that_vllm_does_not_load_is_not_served(serving: Any) -> None:
    serving.engine.unloadable = {"a1"}
    refused = await serving.activate("a1")
    assert refused.status_code == 502
    assert "vLLM does not load the adapter a1: no layer of a1 fits" in refused.json()["detail"]
    assert (await serving.chat()).json()["weight_version"] == "m0"


async def test_an_adapter_of_a_larger_rank_names_the_mend(
    serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REWARDLOOP_MAX_ADAPTER_RANK", "1")
    refused = await serving.activate("a1")
    assert refused.status_code == 502
    assert "set REWARDLOOP_MAX_ADAPTER_RANK and restart it" in refused.json()["detail"]


async def test_a_damaged_adapter_is_not_loaded(serving: Any) -> None:
    path = serving.root / "a1" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    for refused in (await serving.activate("a1"), await serving.chat(model="a1")):
        assert refused.status_code == 500
        assert "a1: adapter_model.safetensors differ from the manifest" in refused.json()["detail"]
    assert loaded(serving) == set()


async def test_a_base_that_is_held_is_not_read_again(serving: Any) -> None:
    """Gigabytes; the engine holds them as they were verified when it loaded them."""
    await serving.chat()
    (serving.root / "m0" / "model.safetensors").write_bytes(b"x" * len("weights of m0"))
    assert (await serving.activate("a1")).status_code == 200


async def test_an_adapter_of_another_base_swaps_the_base_first(serving: Any) -> None:
    await serving.activate("a1")
    assert (await serving.chat(model="of-m1")).status_code == 409
    report = (await serving.activate("of-m1")).json()
    assert (report["version"], report["held_seconds"] > 0) == ("of-m1", True)
    assert serving.engine.loaded == "m1"
    assert loaded(serving) == {"of-m1"}
    assert (await serving.chat()).json()["weight_version"] == "of-m1"
    gone = await serving.chat(model="a1")
    assert gone.status_code == 409
    assert "a1 is no adapter of the base that this engine holds" in gone.json()["detail"]


async def test_a_failed_swap_of_the_base_comes_back_with_its_adapter(serving: Any) -> None:
    await serving.activate("a1")
    assert (await serving.activate("bad")).status_code == 502
    assert (serving.engine.loaded, loaded(serving)) == ("m0", {"a1"})
    assert (await serving.chat()).json()["weight_version"] == "a1"


async def test_a_replica_starts_on_the_base_and_answers_by_the_adapter(
    serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REWARDLOOP_INITIAL_VERSION", "a1")
    assert (await serving.chat()).json()["weight_version"] == "a1"
    assert (serving.engine.loaded, loaded(serving)) == ("m0", {"a1"})
    assert serving.engine.events == ["add adapter a1", "announce m0"]  # nothing was read again


@pytest.mark.parametrize("name", ["no-such-version", "Qwen/Qwen3", "../a1"])
async def test_a_name_that_is_no_version_is_not_found(
    serving: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    async def unknown(_: Any, version: str) -> str | None:
        raise NotFound(f"there is no model version {version!r}")

    monkeypatch.setattr(committed, "manifest_digest", unknown)
    refused = await serving.chat(model=name)
    assert refused.status_code == 404
    assert name in refused.json()["error"]["message"]


async def test_a_named_version_is_compared_with_postgres(
    serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def another(*_: object) -> str | None:
        return "0" * 64

    monkeypatch.setattr(committed, "manifest_digest", another)
    refused = await serving.chat(model="a1")
    assert refused.status_code == 500
    assert "not the one that was committed to Postgres" in refused.json()["detail"]
    digest = checkpoints.digest_of(checkpoints.read_manifest(serving.root / "a1"))
    assert (await serving.activate("a1", manifest_sha256=digest)).status_code == 200
