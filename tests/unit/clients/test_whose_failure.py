"""What kind of error a call ends with: the server is away, it failed on this request, or its
answer cannot be read. And how often each is tried again."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from rewardloop.clients.http import MAX_FAILED_TRIES, call, connect
from rewardloop.embedded.process import free_port
from rewardloop.errors import (
    RewardloopError,
    UnreadableAnswer,
    UpstreamFailed,
    UpstreamUnavailable,
)

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]


class Server:
    """Answers with `first` so many times, and then with JSON."""

    def __init__(
        self, first: Callable[[web.Request], Awaitable[web.StreamResponse]], times: int = 1000
    ) -> None:
        self.num_requests = 0
        self._first = first
        self._times = times

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.num_requests += 1
        if self.num_requests <= self._times:
            return await self._first(request)
        return web.json_response({"ok": True})


def body(text: str | bytes, status: int = 200, **headers: str) -> Any:
    async def answer(_: web.Request) -> web.Response:
        raw = text if isinstance(text, bytes) else text.encode()
        return web.Response(status=status, body=raw, headers=headers)

    return answer


async def cut_off(request: web.Request) -> web.StreamResponse:
    """Half of what was announced, and then no connection."""
    response = web.StreamResponse(headers={"content-length": "100"})
    await response.prepare(request)
    await response.write(b'{"choices": [')
    assert request.transport is not None
    request.transport.close()
    return response


async def closed(request: web.Request) -> web.Response:
    """No answer at all."""
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def silent(_: web.Request) -> web.Response:
    await asyncio.sleep(0.5)
    return web.Response()


async def ask(url: str, *, timeout_seconds: float = 5, retry_seconds: float = 60) -> Any:
    async with connect(url, "key", timeout_seconds=timeout_seconds) as client:
        return await call(client, "POST", "/x", retry_seconds=retry_seconds)


FAILED = {
    "500": body("{}", 500),
    "502 of a proxy": body("<h1>Bad gateway</h1>", 502),
    "504": body("", 504),
    "cut off": cut_off,
    "closed": closed,
}
UNREADABLE = {
    "a page": body("<html></html>"),
    "half of the JSON": body('{"choices": [{"index"'),
    "nothing": body(""),
    "deep JSON": body("[" * 100_000),
    "no text": body(b"\xff\xfe\x00"),
    "not gzip, as it says": body(b"plain", **{"content-encoding": "gzip"}),
    "half of a gzip": body(
        gzip.compress(b'{"ok": true}' * 99)[:30], **{"content-encoding": "gzip"}
    ),
}


pytestmark = pytest.mark.usefixtures("no_waiting")


@pytest.mark.parametrize("name", FAILED)
async def test_a_server_that_took_the_request_failed_on_it(serve: Serve, name: str) -> None:
    server = Server(FAILED[name])
    with pytest.raises(UpstreamUnavailable) as caught:
        await ask(await serve(server))
    assert type(caught.value) is UpstreamFailed
    assert server.num_requests == MAX_FAILED_TRIES


@pytest.mark.parametrize("name", UNREADABLE)
async def test_an_answer_that_cannot_be_read_is_asked_for_again(serve: Serve, name: str) -> None:
    server = Server(UNREADABLE[name])
    with pytest.raises(RewardloopError) as caught:
        await ask(await serve(server))
    assert isinstance(caught.value, UnreadableAnswer | UpstreamFailed)
    assert server.num_requests == MAX_FAILED_TRIES
    once = Server(UNREADABLE[name], times=1)
    assert await ask(await serve(once)) == {"ok": True}


async def test_without_retries_nothing_is_sent_twice(serve: Serve) -> None:
    server = Server(UNREADABLE["a page"])
    with pytest.raises(UnreadableAnswer):
        await ask(await serve(server), retry_seconds=0)
    assert server.num_requests == 1


async def test_no_answer_in_time_is_the_requests_failure(serve: Serve) -> None:
    with pytest.raises(UpstreamFailed, match="does not answer"):
        await ask(await serve(silent), timeout_seconds=0.05, retry_seconds=0)


async def test_a_server_where_nobody_listens_is_away() -> None:
    with pytest.raises(UpstreamUnavailable, match="does not answer") as caught:
        await ask(f"http://127.0.0.1:{free_port()}", retry_seconds=0)
    assert type(caught.value) is UpstreamUnavailable


@pytest.mark.parametrize("status", [429, 503, 529])
async def test_a_busy_server_is_asked_more_often(serve: Serve, status: int) -> None:
    """It is not the request that it refuses."""
    server = Server(body("busy", status), times=2 * MAX_FAILED_TRIES)
    assert await ask(await serve(server)) == {"ok": True}
