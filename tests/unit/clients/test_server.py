"""A call that hangs is asked for anew, a server that hangs is not trusted, a key is sent."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from aiohttp import web

from rewardloop.clients import allowance, breaker, latency, server
from rewardloop.clients.http import call_once
from rewardloop.clients.server import Server, asked_again, request_key
from rewardloop.errors import Overdue, UpstreamRejected, UpstreamUnavailable

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
pytestmark = pytest.mark.usefixtures("no_waiting")


class Engine:
    """Answers each request; the texts in `hangs` and, while it `is_dead`, all of them hang."""

    def __init__(self) -> None:
        self.hangs: set[str] = set()
        self.is_dead = False
        self.headers: list[dict[str, str]] = []
        self.asked: list[str] = []

    async def __call__(self, request: web.Request) -> web.Response:
        text = (await request.json())["text"]
        self.asked.append(text)
        self.headers.append({k.lower(): v for k, v in request.headers.items()})
        if self.is_dead or text in self.hangs:
            await asyncio.sleep(3600)
        if text == "refused":
            return web.json_response({"error": {"message": "no"}}, status=400)
        if text == "broken":
            return web.json_response({"error": {"message": "broken"}}, status=503)
        return web.json_response({"text": text}, headers=self.extra(text))

    def extra(self, text: str) -> dict[str, str]:
        return {"x-rewardloop-given-again": "1"} if text == "kept" else {}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "FLOOR_SECONDS", 0.3)
    monkeypatch.setattr(server, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(server, "PROBE_SECONDS", 0.3)
    monkeypatch.setattr(server, "PROBE_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(breaker, "PAUSE_SECONDS", 0.05)


async def probe(client: httpx.AsyncClient) -> None:
    await call_once(client, "POST", "/probe", json={"text": "one token"})


@asynccontextmanager
async def asking(serve: Serve, engine: Engine, **options: Any) -> AsyncIterator[Server]:
    made = Server(await serve(engine), "key", **options)
    try:
        yield made
    finally:
        await made.aclose()


async def used(made: Server) -> None:
    for _ in range(latency.NUM_NEEDED):
        await made.post("/", {"text": "usual"})


async def test_a_call_that_hangs_is_overdue_by_what_the_others_took(serve: Serve) -> None:
    engine = Engine()
    engine.hangs = {"poison"}
    async with asking(serve, engine) as made:
        await used(made)
        with pytest.raises(Overdue, match="gave no answer within"):
            async with asyncio.timeout(60):
                await made.post("/", {"text": "poison"})
        assert not made.breaker.is_open
        assert (await made.post("/", {"text": "next"})) == {"text": "next"}


async def test_an_overdue_call_is_asked_for_anew_once(serve: Serve) -> None:
    engine = Engine()
    engine.hangs = {"poison"}
    async with asking(serve, engine) as made:
        await used(made)
        engine.headers.clear()

        async def ask(anew: bool) -> Any:
            return await made.post("/", {"text": "poison"}, key="k", anew=anew)

        with pytest.raises(Overdue):
            await asked_again(ask, retry_seconds=60)
    first, second = engine.headers
    assert first["x-request-key"] == second["x-request-key"]
    assert "x-request-anew" not in first
    assert second["x-request-anew"] == "1"


async def test_a_server_that_gives_no_token_is_not_trusted_until_it_does(serve: Serve) -> None:
    """Every call is as late as the others, so that none alone would be overdue."""
    engine = Engine()
    async with asking(serve, engine, probe=probe) as made:
        await used(made)
        engine.is_dead = True
        async with asyncio.timeout(60):
            lost = await asyncio.gather(
                *(made.post("/", {"text": f"{n}"}) for n in range(12)), return_exceptions=True
            )
        assert [type(error) for error in lost] == [Overdue] * 12
        assert made.breaker.is_open
        num_asked = len(engine.asked)
        with pytest.raises(UpstreamUnavailable):  # no trial is due yet, or it is not answered
            await made.post("/", {"text": "real"})
        assert "real" not in engine.asked[num_asked:]
        engine.is_dead = False

        async def ask(anew: bool) -> Any:
            await asyncio.sleep(server.PROBE_SECONDS)  # until the last failed probe is past
            return await made.post("/", {"text": "real"})

        assert await asked_again(ask, retry_seconds=60) == {"text": "real"}
        assert engine.asked[-2:] == ["one token", "real"]


async def test_without_a_probe_nothing_is_held_back(serve: Serve) -> None:
    async with asking(serve, Engine()) as made:
        made.breaker.trial_failed(1e9)
        assert await made.post("/", {"text": "a"}) == {"text": "a"}
        assert not made.breaker.is_open


async def test_a_prompt_that_always_fails_does_not_cut_the_others_off(serve: Serve) -> None:
    """Each time that the breaker opens, one token shows that the server is there."""
    engine = Engine()
    async with asking(serve, engine, probe=probe) as made:
        for _ in range(4 * breaker.MAX_FAILURES):
            with pytest.raises(UpstreamUnavailable, match=r"^broken$"):
                await made.post("/", {"text": "broken"})
        assert await made.post("/", {"text": "next"}) == {"text": "next"}
    assert engine.asked.count("broken") == 4 * breaker.MAX_FAILURES


async def test_refusals_are_answers(serve: Serve) -> None:
    async with asking(serve, Engine()) as made:
        for _ in range(2 * breaker.MAX_FAILURES):
            with pytest.raises(UpstreamRejected):
                await made.post("/", {"text": "refused"})
        assert not made.breaker.is_open


async def test_answers_that_cost_no_call_say_nothing_of_the_speed(serve: Serve) -> None:
    async with asking(serve, Engine()) as made:
        for _ in range(2 * latency.NUM_NEEDED):
            await made.post("/", {"text": "kept"}, key="k")
        assert made._latency.deadline() == server.REQUEST_SECONDS
        await used(made)
        assert made._latency.deadline() < server.REQUEST_SECONDS


async def test_a_key_stands_for_one_question(serve: Serve) -> None:
    engine = Engine()
    async with asking(serve, engine) as made:
        for text in ("a", "a", "b"):
            await made.post("/", {"text": text}, key="k")
        await made.post("/", {"text": "a"})
    first, again, other, none = (headers.get("x-request-key") for headers in engine.headers)
    assert first == again != other
    assert none is None


def test_keys_tell_uses_apart() -> None:
    parts = [
        ("sample", 1, (0, 1)),
        ("sample", 1, (0, 2)),
        ("judge", 1, (0, 1)),
        ("sample", 11, (0, 1)),
    ]
    assert len({request_key(*each) for each in parts}) == 4
    assert request_key("sample", 1, [0, 1]) == request_key("sample", 1, (0, 1))


async def test_calls_in_flight_grow_with_the_answers_and_those_that_wait_are_not_late(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allowance, "FIRST_CALLS", 2)
    monkeypatch.setattr(allowance, "FEWEST_CALLS", 1)
    monkeypatch.setattr(allowance, "MAX_CALLS", 5)
    monkeypatch.setattr(server, "LOOK_SECONDS", 0.01)
    at_once: list[int] = []
    num = 0

    async def slow(request: web.Request) -> web.Response:
        nonlocal num
        num += 1
        at_once.append(num)
        await asyncio.sleep(0.1)
        num -= 1
        return web.json_response({})

    made = Server(await serve(slow), "key")
    try:
        asked = [asyncio.create_task(made.post("/", {"text": f"{n}"})) for n in range(40)]
        await asyncio.sleep(0)
        assert made.reluctance == (0.0, 40)
        await asyncio.gather(*asked)  # the last ones wait for 0.8 s; overdue is 0.3
        assert made.reluctance == (0.0, 0)
    finally:
        await made.aclose()
    assert at_once[:2] == [1, 2]
    assert at_once[2] <= 2  # it began after the first answer
    assert max(at_once) == 5
