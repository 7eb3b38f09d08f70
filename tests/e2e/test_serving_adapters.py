"""Adapters in a real engine: served on their base, and merged with it."""

import asyncio
import json
import shutil
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.security import random_adapters
from tests.security.random_adapters import BASE
from tests.security.real_replica import START_SECONDS, Replica, replica

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
ADAPTERS = ("a1", "a2", "a3")
MAX_MODEL_LEN = 512
Published = tuple[Path, Mapping[str, Mapping[str, Any]]]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    root = tmp_path_factory.mktemp("adapters")
    return root, random_adapters.publish(root, ADAPTERS)


def replica_of(published: Published, folder: Path) -> AbstractAsyncContextManager[Replica]:
    root, manifests = published

    def copy(to: Path) -> Mapping[str, Mapping[str, Any]]:
        shutil.copytree(root, to, dirs_exist_ok=True)
        return manifests

    return replica(folder, copy)


async def activate(admin: httpx.AsyncClient, version: str) -> dict[str, Any]:
    answer = await admin.post("/admin/activate", json={"version": version})
    assert answer.status_code == 200, answer.text
    report: dict[str, Any] = answer.json()
    print(version, report["canary"], f"held {report['held_seconds']:.2f} s")
    assert report["version"] == version
    assert report["canary"]["mean_difference"] <= report["canary"]["bound"]
    return report


async def streamed(api: httpx.AsyncClient, version: str) -> set[str]:
    """Who says to have written the chunks of one stream, to its end."""
    body = {"model": version, "prompt": "The sea", "max_tokens": 24, "stream": True}
    writers, ended = set(), False
    async with api.stream("POST", "/v1/completions", json={**body, "temperature": 0}) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                writers.add(json.loads(line[6:])["weight_version"])
            ended = ended or line == "data: [DONE]"
    assert ended
    return writers


async def said(api: httpx.AsyncClient, version: str) -> str:
    body = {"model": version, "prompt": "The sea", "max_tokens": 32, "temperature": 0}
    answer = (await api.post("/v1/completions", json=body)).json()
    assert answer["weight_version"] == version
    text: str = answer["choices"][0]["text"]
    return text


async def test_an_engine_answers_by_several_adapters_while_another_becomes_current(
    published: Published, tmp_path: Path
) -> None:
    async with replica_of(published, tmp_path / "home") as served:
        server = served.start(
            MAX_MODEL_LEN, REWARDLOOP_ADAPTERS="serve", REWARDLOOP_MAX_ADAPTERS="3"
        )
        try:
            await server.wait_until(served.is_healthy, START_SECONDS)
            async with served.client() as api, served.client(admin=True) as admin:
                await activate(admin, "a1")
                asked = [version for _ in range(3) for version in ("a1", "a2", BASE)]
                streams = [asyncio.create_task(streamed(api, version)) for version in asked]
                await asyncio.sleep(0)
                report = await activate(admin, "a3")
                assert (report["held_seconds"], report["num_ended"]) == (0.0, 0)
                assert await asyncio.gather(*streams) == [{version} for version in asked]
                assert await streamed(api, "policy") == {"a3"}
                names = {m["id"] for m in (await api.get("/v1/models")).json()["data"]}
                assert names == {"policy", *ADAPTERS}
                texts = {version: await said(api, version) for version in (BASE, *ADAPTERS)}
                assert len(set(texts.values())) == 4, texts
        finally:
            server.stop()


async def test_an_engine_that_merges_speaks_as_the_adapter(
    published: Published, tmp_path: Path
) -> None:
    """From the base to an adapter, to another one and back, by the whole swap."""
    async with replica_of(published, tmp_path / "home") as served:
        server = served.start(MAX_MODEL_LEN, REWARDLOOP_ADAPTERS="merge")
        try:
            await server.wait_until(served.is_healthy, START_SECONDS)
            async with served.client() as api, served.client(admin=True) as admin:
                for version in ("a1", "a2", BASE):
                    assert (await activate(admin, version))["held_seconds"] > 0
                    assert await streamed(api, "policy") == {version}
                assert (await api.get("/v1/models")).json()["data"][0]["id"] == "policy"
                assert not list(served.home.checkpoints.glob(".merged-*"))
        finally:
            server.stop()
