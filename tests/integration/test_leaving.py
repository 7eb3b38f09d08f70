"""A replica that is told to end, as a process of its own: the stub engine behind the gate."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rewardloop.embedded.process import Process, free_port
from rewardloop.store import replicas

LATENCY_SECONDS = 6.0


@pytest.fixture
async def replica(world: Any, tmp_path: Path) -> AsyncIterator[tuple[Process, str]]:
    await world.with_base()
    url = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "services.generator.stub_engine"]
    options = ["--port", url.rpartition(":")[2]]
    faults = ["--faults", f'{{"latency_seconds": {LATENCY_SECONDS}}}']
    named = {"REWARDLOOP_REPLICA_URL": url, "REWARDLOOP_NOTICE_SECONDS": "2"}
    process = Process(
        "stub", [*command, *options, *faults], {**os.environ, **named}, tmp_path / "l"
    )
    try:
        await process.wait_until(lambda: is_ready(url), 60)
        yield process, url
    finally:
        process.stop()


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready").status_code == 200
    except httpx.TransportError:
        return False


async def states(world: Any) -> list[str]:
    return [row["state"] for row in await world.rows("SELECT state FROM replicas")]


async def test_sigterm_makes_it_unready_at_once_and_what_is_in_flight_ends(
    world: Any, replica: tuple[Process, str]
) -> None:
    process, url = replica
    key = {"authorization": f"Bearer {world.settings.api_key.get_secret_value()}"}
    body = {"model": "policy", "messages": [{"role": "user", "content": "hello"}]}
    async with httpx.AsyncClient(base_url=url, headers=key, timeout=60) as client:
        ask = client.post("/v1/chat/completions", json=body)
        early = asyncio.create_task(ask)
        while "rewardloop_requests_in_flight 1.0" not in (await client.get("/metrics")).text:
            await asyncio.sleep(0.05)
        assert await states(world) == ["ready"]
        process._popen.terminate()
        while (told := await client.get("/ready")).status_code == 200:
            await asyncio.sleep(0.02)
        assert told.json()["detail"] == "not ready: this replica ends"
        late = asyncio.create_task(client.post("/v1/chat/completions", json=body))
        async with asyncio.timeout(2):
            while await states(world) != ["leaving"]:
                await asyncio.sleep(0.05)
        await asyncio.sleep(2.5)  # past the notice
        refused = await client.post("/v1/chat/completions", json=body)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        assert "this replica ends; ask another one" in refused.json()["detail"]
        assert [(await one).status_code for one in (early, late)] == [200, 200]
    async with asyncio.timeout(20):
        while not process.has_ended:
            await asyncio.sleep(0.05)
    assert await states(world) == []
    async with world.store.transaction() as session:
        assert await replicas.data_urls(session) == []
