"""A real replica joins, is told to end, and loses no answer."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from rewardloop.embedded.process import Process
from rewardloop.store import replicas
from tests.security import stepping_model
from tests.security.real_replica import START_SECONDS, Replica, replica

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def publish(root: Path) -> dict[str, dict[str, Any]]:
    return {"one": stepping_model.publish(root, "one", 1)}


async def data_urls(served: Replica) -> list[str]:
    async with served.store.transaction() as session:
        return await replicas.data_urls(session)


async def test_sigterm_makes_it_unready_at_once_and_what_is_in_flight_ends(tmp_path: Path) -> None:
    async with replica(tmp_path / "home", publish) as served:
        server = served.start(
            stepping_model.MAX_TOKENS,
            REWARDLOOP_REPLICA_URL=served.url,
            REWARDLOOP_STOP_DRAIN_SECONDS="120",
            REWARDLOOP_NOTICE_SECONDS="1",
        )
        try:
            await server.wait_until(served.is_healthy, START_SECONDS)
            await _leaves_well(served, server)
        except Exception:
            print(server.log.read_text()[-4000:])
            raise
        finally:
            server.stop()


async def _leaves_well(served: Replica, server: Process) -> None:
    async with asyncio.timeout(5):
        while await data_urls(served) != [served.url]:
            await asyncio.sleep(0.1)
    async with served.client() as client:
        assert (await client.get("/ready")).status_code == 200
        answer = asyncio.create_task(ask(client, 1500))
        while "rewardloop_requests_in_flight 1.0" not in (await client.get("/metrics")).text:
            await asyncio.sleep(0.05)
        server._popen.terminate()
        while (await client.get("/ready")).status_code == 200:
            await asyncio.sleep(0.02)
        assert not answer.done(), "too short to be in flight"
        assert (await ask(client, 1)).status_code == 200  # routers have not noticed yet
        async with asyncio.timeout(1):  # the notice: until then requests are taken
            while await data_urls(served) != []:
                await asyncio.sleep(0.02)
        await asyncio.sleep(1.2)
        if not answer.done():
            refused = await ask(client, 1)
            assert refused.status_code == 503
            assert "ask another one" in refused.json()["detail"]
        whole = (await answer).json()
    assert len(whole["choices"][0]["token_ids"]) == 1500
    async with asyncio.timeout(60):
        while not server.has_ended:
            await asyncio.sleep(0.1)
    async with served.store.transaction() as session:
        assert await replicas.alive(session) == []


async def ask(client: httpx.AsyncClient, num_tokens: int) -> httpx.Response:
    request = {
        "model": "policy",
        "messages": [{"role": "user", "content": "Count"}],
        "max_tokens": num_tokens,
        "temperature": 0,
        "return_token_ids": True,
    }
    return await client.post("/v1/chat/completions", json=request)
