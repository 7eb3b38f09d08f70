"""Which checkpoint an engine begins with, and what Postgres says of it."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from rewardloop import checkpoints
from rewardloop.errors import CheckpointInvalid, NotFound
from services.generator import gate
from services.generator.launch import initial_checkpoint
from services.generator.stub_engine import StubEngine


@pytest.fixture
def launched(world: Any) -> Callable[[], Path]:
    """Launch as `python -m services.generator` does, in a thread without an event loop."""
    for name in (gate.INITIAL_VERSION, gate.INITIAL_MANIFEST, gate.INITIAL_STATE):
        world.monkeypatch.setenv(name, "")
    return lambda: initial_checkpoint(world.settings)


def rewrite(folder: Path) -> None:
    """Flip a bit of the weights and make the manifest agree."""
    path = folder / "model.safetensors"
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    manifest = checkpoints.read_manifest(folder)
    manifest["files"] = checkpoints.describe(folder)
    (folder / checkpoints.MANIFEST).write_text(json.dumps(manifest))
    checkpoints.verify(folder)  # it agrees with itself


async def test_the_gate_is_told_what_was_verified(world: Any, launched: Callable[[], Path]) -> None:
    await world.with_base()
    folder = await asyncio.to_thread(launched)
    digest = checkpoints.digest_of(checkpoints.verify(folder))
    told = [os.environ[name] for name in (gate.INITIAL_MANIFEST, gate.INITIAL_STATE)]
    assert told == [digest, checkpoints.state_of(folder)]
    assert os.environ[gate.INITIAL_VERSION] == folder.name == "base"


async def test_an_engine_does_not_start_on_a_rewritten_manifest(
    world: Any, launched: Callable[[], Path]
) -> None:
    await world.with_base()
    rewrite(world.settings.checkpoint_root / "base")
    with pytest.raises(CheckpointInvalid, match="not the one that was committed to Postgres"):
        await asyncio.to_thread(launched)


async def test_a_row_without_a_manifest_is_believed(
    world: Any, launched: Callable[[], Path]
) -> None:
    await world.with_base()
    await world.rows("UPDATE model_versions SET manifest = '{}' RETURNING 1")
    folder = await asyncio.to_thread(launched)
    assert (folder.name, os.environ[gate.INITIAL_MANIFEST]) == ("base", "")


async def test_nothing_starts_before_a_version_is_served(
    world: Any, launched: Callable[[], Path]
) -> None:
    with pytest.raises(NotFound, match="no model version is marked as served"):
        await asyncio.to_thread(launched)


async def activate(world: Any, version: str) -> httpx.Response:
    """As an admin by hand: without a digest."""
    key = world.settings.admin_key.get_secret_value()
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {key}"}, timeout=60) as client:
        url = f"{world.settings.generator_urls[0]}/admin/activate"
        return await client.post(url, json={"version": version})


@pytest.fixture
async def engine(world: Any) -> StubEngine:
    """A replica on the base, with m1 beside it."""
    await world.with_base()
    await world.publish("m1", parent="base")
    served: StubEngine = world.serve_generator()
    return served


async def test_a_swap_by_hand_is_compared_with_postgres_too(world: Any, engine: StubEngine) -> None:
    assert (await activate(world, "m1")).status_code == 200
    assert (await activate(world, "base")).status_code == 200
    rewrite(world.settings.checkpoint_root / "m1")
    refused = await activate(world, "m1")
    assert refused.status_code == 500
    assert "m1: manifest.json is not the one that was committed" in refused.json()["detail"]
    assert await engine.get_weight_version() == "base"


async def test_a_version_that_was_never_committed_is_not_served(
    world: Any, engine: StubEngine
) -> None:
    await world.rows("DELETE FROM model_versions WHERE id = 'm1' RETURNING 1")
    refused = await activate(world, "m1")
    assert (refused.status_code, await engine.get_weight_version()) == (404, "default")
    assert "there is no model version 'm1'" in refused.json()["detail"]


async def test_a_controller_does_not_swap_in_a_rewritten_checkpoint(
    world: Any, engine: StubEngine
) -> None:
    from services.worker.swap import bring_to

    rewrite(world.settings.checkpoint_root / "m1")
    with pytest.raises(CheckpointInvalid, match="not the one that was committed"):
        await bring_to(world.store, world.settings, "m1")
    (report,) = await bring_to(world.store, world.settings, "base")
    assert report["canary"]["mean_difference"] == 0


async def test_a_replica_is_verified_before_anybody_asks(world: Any, engine: StubEngine) -> None:
    """The server's own start begins it; a replica on damaged weights never gets healthy."""
    async with httpx.AsyncClient(base_url=world.settings.generator_urls[0]) as client:
        assert (await client.get("/health")).status_code == 200
    world.stop_generator()
    world.serve_generator(replica=0)
    rewrite(world.settings.checkpoint_root / "base")
    world.stop_generator()
    world.monkeypatch.setenv(gate.INITIAL_MANIFEST, "0" * 64)
    world.serve_generator()
    async with httpx.AsyncClient(base_url=world.settings.generator_urls[0]) as client:
        refused = await client.get("/health")
    assert refused.status_code == 503
    assert "base could not be verified" in refused.json()["detail"]
