"""A plain request arrives as httpx would have sent it, and its answer is read as httpx would."""

import gzip
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from aiohttp import web

from rewardloop import telemetry
from rewardloop.clients.http import connect
from rewardloop.clients.quick import QuickClient

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]


async def echo(request: web.Request) -> web.Response:
    """What arrived, compressed if it asks for that."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    body = (await request.read()).decode()
    found = {"method": request.method, "path": request.path_qs, "headers": headers, "body": body}
    answer = gzip.compress(json.dumps(found).encode())
    return web.Response(
        body=answer, headers={"content-encoding": "gzip", "content-type": "application/json"}
    )


REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/v1/models", {}),
    ("POST", "/a/b?c=d", {"json": {"text": 'ü "quoted"\n\U0001f600', "n": [1, 2.5, None]}}),
    ("POST", "/", {"json": {}, "headers": {"x-request-key": "k"}}),
    ("DELETE", "/v1/x", {}),
]


@pytest.mark.parametrize(("method", "path", "what"), REQUESTS)
async def test_it_arrives_alike(serve: Serve, method: str, path: str, what: dict[str, Any]) -> None:
    async with connect(f"{await serve(echo)}/", "key", timeout_seconds=5) as client:
        assert isinstance(client, QuickClient)
        with telemetry.work_fields(iteration="7"):
            quick = (await client.request(method, path, **what)).json()
            usual = (await httpx.AsyncClient.request(client, method, path, **what)).json()
    assert quick == usual
    assert quick["headers"]["authorization"] == "Bearer key"
    assert quick["headers"][telemetry.WORK_HEADER] == "iteration=7"


async def test_what_is_not_plain_goes_httpxs_way(serve: Serve) -> None:
    async with connect(await serve(echo), "key", timeout_seconds=5) as client:
        found = (await client.request("GET", "/a", params={"b": "c"})).json()
    assert found["path"] == "/a?b=c"


async def test_an_error_names_its_request_and_a_redirect_is_not_followed(serve: Serve) -> None:
    async def moved(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"location": "/elsewhere"})

    async with connect(url := await serve(moved), "key", timeout_seconds=5) as client:
        answer = await client.request("GET", "/a")
    assert answer.status_code == 302
    assert str(answer.request.url) == f"{url.rstrip('/')}/a"
