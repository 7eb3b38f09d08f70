"""What unit tests share: small local servers, in the test's own loop."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import HealthCheck, settings
from tenacity import wait_none

from rewardloop.clients import http

settings.register_profile(
    "unit", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unit")

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Answer], Awaitable[str]]]:
    """Starts a server of one handler on a free port of this machine; returns its address."""
    servers: list[TestServer] = []

    async def start(answer: Answer) -> str:
        async def handler(request: web.Request) -> web.StreamResponse:
            return await answer(request)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        server = TestServer(app)
        await server.start_server()
        servers.append(server)
        return str(server.make_url("")).rstrip("/")

    yield start
    for server in servers:
        await server.close()


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow each other at once."""

    def at_once(**_: Any) -> wait_none:
        return wait_none()

    monkeypatch.setattr(http, "wait_exponential_jitter", at_once)
