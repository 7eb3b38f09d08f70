"""A judge that is told to end says so before it refuses connections."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from rewardloop.embedded.process import Process, free_port

KEY = "a-key-of-16-chars"


@pytest.fixture
async def judge(tmp_path: Path, notice: str) -> AsyncIterator[tuple[Process, str]]:
    port = free_port()
    environment = {**os.environ, "REWARDLOOP_API_KEY": KEY, "REWARDLOOP_NOTICE_SECONDS": notice}
    command = [sys.executable, "-m", "services.judge", "--port", str(port)]
    process = Process("judge", command, environment, tmp_path / "log")
    url = f"http://127.0.0.1:{port}"
    try:
        await process.wait_until(lambda: answers(url), 60)
        yield process, url
    finally:
        process.stop()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready").json() == {"status": "ready"}
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("notice", ["1"])
async def test_it_is_unready_at_once_and_takes_requests_until_routers_noticed(
    judge: tuple[Process, str],
) -> None:
    process, url = judge
    process._popen.terminate()
    async with httpx.AsyncClient(base_url=url) as client:
        while (told := await client.get("/ready")).status_code == 200:
            await asyncio.sleep(0.01)
        assert (told.status_code, told.json()["detail"]) == (503, "not ready: this service ends")
        models = await client.get("/v1/models", headers={"authorization": f"Bearer {KEY}"})
        assert models.status_code == 200
        assert (await client.get("/health")).status_code == 200
    async with asyncio.timeout(10):
        while not process.has_ended:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("notice", ["60"])
async def test_a_second_signal_ends_it_at_once(judge: tuple[Process, str]) -> None:
    process, url = judge
    process._popen.terminate()
    async with httpx.AsyncClient(base_url=url) as client:
        while (await client.get("/ready")).status_code == 200:
            await asyncio.sleep(0.01)
    process._popen.terminate()
    async with asyncio.timeout(20):
        while not process.has_ended:
            await asyncio.sleep(0.02)
