"""Judgements are written once for a key, and the engine is asked under a key of its own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
from aiohttp import web

from tests.unit.judge.served_judge import judge_over

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]


class Engine:
    """Writes a score, numbered; waits while it may not."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self.may = asyncio.Event()
        self.may.set()

    async def __call__(self, request: web.Request) -> web.Response:
        self.headers.append({k.lower(): v for k, v in request.headers.items()})
        text = f"Call {len(self.headers)}.\nScore 7f3a: 3"
        await self.may.wait()
        if self.status != 200:
            return web.json_response({"error": {"message": "no"}}, status=self.status)
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "weight_version": "m1"})


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
async def client(serve: Serve, engine: Engine) -> AsyncIterator[httpx.AsyncClient]:
    async with judge_over(await serve(engine)) as client:
        yield client


async def ask(client: httpx.AsyncClient, content: str = "Blue.", **headers: str) -> httpx.Response:
    turns = [{"role": "user", "content": "A colour?"}, {"role": "assistant", "content": content}]
    body = {"model": "judge", "messages": turns, "n": 1}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post("/v1/chat/completions", json=body, headers=named)


async def test_a_key_is_judged_once(client: httpx.AsyncClient, engine: Engine) -> None:
    first, again = await ask(client, x_request_key="k"), await ask(client, x_request_key="k")
    assert first.json() == again.json()
    said = [answer.headers.get("x-rewardloop-given-again") for answer in (first, again)]
    assert said == [None, "1"]
    assert len(engine.headers) == 1
    await ask(client)
    await ask(client, x_request_key="other")
    assert len(engine.headers) == 3


async def test_the_engine_is_asked_under_a_key_of_its_own(
    client: httpx.AsyncClient, engine: Engine
) -> None:
    await ask(client, x_request_key="k")
    await ask(client)
    own, none = (headers.get("x-request-key") for headers in engine.headers)
    assert own is not None
    assert own != "k"
    assert none is None


async def test_a_judge_that_was_restarted_asks_under_the_same_key(
    serve: Serve, engine: Engine
) -> None:
    """So a gate that went on without it has the answer."""
    url = await serve(engine)
    for _ in range(2):
        async with judge_over(url) as client:
            await ask(client, x_request_key="k")
    first, second = (headers["x-request-key"] for headers in engine.headers)
    assert first == second


async def test_an_overdue_judgement_is_written_anew(
    client: httpx.AsyncClient, engine: Engine
) -> None:
    engine.may.clear()
    first = asyncio.create_task(ask(client, x_request_key="k"))
    anew = asyncio.create_task(ask(client, x_request_key="k", x_request_anew="1"))
    async with asyncio.timeout(60):
        while len(engine.headers) < 2:
            await asyncio.sleep(0.001)
    engine.may.set()
    one, other = await asyncio.gather(first, anew)
    assert one.status_code == 200
    assert one.json() == other.json()
    assert [headers.get("x-request-anew") for headers in engine.headers] == [None, "1"]


async def test_another_body_under_a_key_is_a_conflict(client: httpx.AsyncClient) -> None:
    await ask(client, x_request_key="k")
    assert (await ask(client, "Red.", x_request_key="k")).status_code == 409


async def test_a_refusal_is_not_kept(client: httpx.AsyncClient, engine: Engine) -> None:
    engine.status = 400
    assert (await ask(client, x_request_key="k")).status_code == 502
    engine.status = 200
    assert (await ask(client, x_request_key="k")).status_code == 200


@pytest.mark.parametrize("key", ["", "k" * 201])
async def test_a_key_has_a_length(client: httpx.AsyncClient, key: str) -> None:
    assert (await ask(client, x_request_key=key)).status_code == 422
