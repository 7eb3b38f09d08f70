"""How tests of the REST service ask it and read its problems."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx


@asynccontextmanager
async def client_of_five_prompts(world: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the key, on an API with a base version and five prompts."""
    await world.with_base()
    await world.add_prompts("one", "two", "three", "four", "five")
    async with world.api() as client:
        yield client


def assert_problem(answer: httpx.Response, status: int, kind: str) -> str:
    """The answer is RFC 9457 problem details; returns its detail."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["type"]) == (status, f"urn:rewardloop:error:{kind}")
    return problem["detail"]


async def new_run(api: httpx.AsyncClient, **config: Any) -> str:
    answer = await api.post("/v1/runs", json=config)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


async def post_raw(api: httpx.AsyncClient, url: str, body: Any) -> httpx.Response:
    """Post what httpx's own JSON would not write, such as half a surrogate pair."""
    headers = {"content-type": "application/json"}
    return await api.post(url, content=json.dumps(body), headers=headers)
