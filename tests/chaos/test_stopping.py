"""Pause, cancel and go on, while the processes that would carry it out are killed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from tests.chaos.cluster import Cluster, running
from tests.chaos.work import Work, prepare

DATASETS = {
    "first": [f"first {number}" for number in range(40)],
    "second": [f"second {number}" for number in range(6)],
}
SHARE = {"num_tasks": 1, "max_in_flight": 4}


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    faults = {"latency_seconds": 1.0}

    async def filled(made: Cluster) -> None:
        await prepare(made, DATASETS)

    async with running(tmp_path, num_workers=1, faults=faults, prepare=filled) as made:
        yield made


class Asked:
    """What the API says of iterations, and is asked of them."""

    def __init__(self, api: httpx.AsyncClient) -> None:
        self._api = api

    async def view(self, iteration_id: UUID) -> dict[str, Any]:
        view: dict[str, Any] = (await self._api.get(f"/v1/iterations/{iteration_id}")).json()
        return view

    async def ask(self, iteration_id: UUID, what: str) -> dict[str, Any]:
        answer = await self._api.post(f"/v1/iterations/{iteration_id}/{what}")
        assert answer.status_code == 200, answer.text
        view: dict[str, Any] = answer.json()
        return view

    async def until(self, iteration_id: UUID, state: str, num_responses: int = 0) -> None:
        async with asyncio.timeout(300):
            while True:
                view = await self.view(iteration_id)
                if view["state"] == state and view["counts"]["responses"] >= num_responses:
                    return
                assert view["error"] is None
                await asyncio.sleep(0.2)


@pytest.mark.timeout(900)  # a minute where both cores are free
async def test_what_was_asked_comes_true_whoever_is_killed(cluster: Cluster) -> None:
    key = {"authorization": f"Bearer {cluster.home.credentials().api_key}"}
    work = Work(cluster)
    first = await work.begin("first", **SHARE)
    second = await work.begin("second", **SHARE)
    async with httpx.AsyncClient(base_url=cluster.url("api"), headers=key, timeout=60) as client:
        api = Asked(client)
        await api.until(first, "running", num_responses=8)
        cluster.kill("controller")
        cluster.kill("worker-0")
        await api.ask(first, "pause")
        for part in ("controller", "worker-0"):
            await cluster.start(part)
        await api.until(first, "paused")
        await api.until(second, "running", num_responses=4)  # the engines were given back
        assert (await api.ask(first, "resume"))["state"] == "queued"
        await cluster.bounce("broker", 0.2)
        assert (await api.ask(second, "cancel"))["state"] == "cancelled"
        await api.until(first, "running")
        assert (await api.ask(second, "retry"))["state"] == "queued"
        for iteration, num_prompts in ((first, 40), (second, 6)):
            done = await work.finished(iteration, within_seconds=300)
            assert (done.num_responses, done.num_judgements) == (4 * num_prompts, 12 * num_prompts)
            assert done.num_duplicates == 0
    await work.close()
