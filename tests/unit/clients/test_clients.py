"""Retries, the translation of errors, and what is made of an answer."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from rewardloop import errors
from rewardloop.clients.api import ApiClient
from rewardloop.clients.http import MAX_FAILED_TRIES, call, connect
from rewardloop.clients.replicas import ReplicaAdmin
from rewardloop.embedded.process import free_port
from rewardloop.records import (
    PromptRecord,
)
from tests.unit.clients.scripted import BUSY, HI, KEY, Script, Serve

pytestmark = pytest.mark.usefixtures("no_waiting")


@asynccontextmanager
async def calling(serve: Serve, script: Script) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    async with connect(await serve(script), KEY, timeout_seconds=5) as client:

        async def get(retry_seconds: float = 0) -> Any:
            return await call(client, "GET", "/x", retry_seconds=retry_seconds)

        yield get


async def test_a_busy_server_is_asked_again(serve: Serve) -> None:
    script = Script(BUSY, BUSY, (200, {"ok": True}))
    async with calling(serve, script) as get:
        assert await get(retry_seconds=5) == {"ok": True}
    assert len(script.requests) == 3


async def test_retries_end(serve: Serve) -> None:
    script = Script(BUSY)
    async with calling(serve, script) as get:
        with pytest.raises(errors.UpstreamUnavailable, match="loading"):
            await get(retry_seconds=1)
        assert len(script.requests) > 1
        script.requests.clear()
        with pytest.raises(errors.UpstreamUnavailable):
            await get()
        assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, {"error": {"message": "no", "type": "BadRequestError"}}, errors.UpstreamRejected),
        (404, errors.NotFound("no").problem(), errors.NotFound),
        (409, errors.Conflict("no").openai(), errors.Conflict),
        (422, errors.PromptTooLong("no").openai(), errors.PromptTooLong),
        (502, errors.SwapFailed("no").openai(), errors.SwapFailed),
        (502, errors.UpstreamRejected("no").openai(), errors.UpstreamRejected),
    ],
)
async def test_a_refusal_is_final(
    serve: Serve, status: int, body: Any, expected: type[Exception]
) -> None:
    script = Script((status, body))
    async with calling(serve, script) as get:
        with pytest.raises(expected, match=r"^no$") as caught:
            await get(retry_seconds=5)
    assert type(caught.value) is expected
    assert len(script.requests) == 1


NO_MODEL = {"error": {"message": "The model `big` does not exist.", "type": "NotFoundError"}}


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (404, NO_MODEL, "model `big` does not exist"),
        (404, {"detail": "Not Found"}, "Not Found"),
        (307, b"", "307"),
        (200, b"<h1>Log in</h1>", "something else than JSON"),
    ],
)
async def test_a_server_that_is_not_the_wanted_one_is_named(
    serve: Serve, status: int, body: Any, told: str
) -> None:
    script = Script((status, body))
    async with calling(serve, script) as get:
        with pytest.raises(errors.UpstreamMismatch, match=told) as caught:
            await get(retry_seconds=5)
    assert "http://" in caught.value.message
    assert "address" in caught.value.message
    assert len(script.requests) == (MAX_FAILED_TRIES if status == 200 else 1)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_wrong_key_names_the_setting_and_the_address(serve: Serve, status: int) -> None:
    script = Script((status, {"detail": "go away"}))
    async with calling(serve, script) as get:
        told = r"GET http.*/x .*REWARDLOOP_API_KEY, .*credentials\.json"
        with pytest.raises(errors.Unauthorized, match=told):
            await get(retry_seconds=5)
    assert len(script.requests) == 1


@pytest.mark.parametrize("body", [b"<h1>Bad gateway</h1>", b"", b"null", b'"busy"', b"[1]"])
async def test_a_proxys_error_is_transient_whatever_its_body(serve: Serve, body: bytes) -> None:
    async with calling(serve, Script((502, body))) as get:
        with pytest.raises(errors.UpstreamUnavailable):
            await get()


async def test_nobody_listens() -> None:
    port = free_port()
    async with connect(f"http://127.0.0.1:{port}", KEY, timeout_seconds=5) as client:
        with pytest.raises(errors.UpstreamUnavailable, match=f":{port}.* does not answer"):
            await call(client, "GET", "/x")


async def test_a_server_that_hangs_is_given_up(serve: Serve) -> None:
    release = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        await release.wait()
        return web.Response()

    async with connect(await serve(hang), KEY, timeout_seconds=0.05) as client:
        with pytest.raises(errors.UpstreamUnavailable, match="does not answer"):
            await call(client, "GET", "/x")
    release.set()


async def test_a_replica_is_asked_for_its_weights_and_for_a_swap(serve: Serve) -> None:
    script = Script((200, {"version": "m0"}), (200, {"version": "m1"}))
    async with ReplicaAdmin(await serve(script), KEY) as admin:
        assert await admin.weights() == {"version": "m0"}
        assert await admin.activate("m1") == {"version": "m1"}
    assert script.requests == [
        ("GET", "/admin/weights", {}),
        ("POST", "/admin/activate", {"version": "m1"}),
    ]


async def test_a_replica_is_told_what_postgres_knows_of_a_version(serve: Serve) -> None:
    script = Script((200, {"version": "m1"}), (200, {"version": "m2"}))
    async with ReplicaAdmin(await serve(script), KEY, {"m1": "abc", "m2": None}) as admin:
        await admin.activate("m1")
        await admin.activate("m2")
    assert script.requests == [
        ("POST", "/admin/activate", {"version": "m1", "manifest_sha256": "abc"}),
        ("POST", "/admin/activate", {"version": "m2"}),
    ]


async def test_a_failed_swap_is_not_tried_again(serve: Serve) -> None:
    script = Script(BUSY)
    async with ReplicaAdmin(await serve(script), KEY) as admin:
        with pytest.raises(errors.UpstreamUnavailable):
            await admin.activate("m1")
    assert len(script.requests) == 1


async def test_prompts_are_sent_in_chunks(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rewardloop.clients.api._PROMPTS_PER_REQUEST", 2)
    left_out = {"empty": {"count": 1, "first": "prompts.1", "detail": "x"}}
    script = Script(
        (200, {"added": 2, "known": 0, "left_out": left_out, "elsewhere": {"evaluation": 2}}),
        (200, {"added": 0, "known": 1, "left_out": left_out, "elsewhere": {"other": 1}}),
    )
    prompts = [PromptRecord((HI,), None, f"seed:{i}") for i in range(3)]
    async with ApiClient(await serve(script), KEY) as api:
        added = await api.add_prompts("my set", prompts)
    assert added == {
        "added": 2,
        "known": 1,
        "left_out": {"empty": {"count": 2, "first": "prompts.1", "detail": "x"}},
        "elsewhere": {"evaluation": 2, "other": 1},
    }
    assert [path for _, path, _ in script.requests] == ["/v1/datasets/my set/prompts"] * 2
    sent = [[row["source"] for row in body["prompts"]] for _, _, body in script.requests]
    assert sent == [["seed:0", "seed:1"], ["seed:2"]]


async def test_long_prompts_are_sent_in_smaller_chunks(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request's body has a bound. One that passes it alone is sent alone, for the API to say."""
    monkeypatch.setattr("rewardloop.clients.api._BYTES_PER_REQUEST", 1000)
    script = Script((200, {"added": 1, "known": 0}))
    sizes = [300, 300, 300, 300, 5000, 10]
    prompts = [
        PromptRecord(({"role": "user", "content": "x" * size},), None, str(size)) for size in sizes
    ]
    async with ApiClient(await serve(script), KEY) as api:
        await api.add_prompts("mine", prompts)
    sent = [[row["source"] for row in body["prompts"]] for _, _, body in script.requests]
    assert sent == [["300", "300"], ["300", "300"], ["5000"], ["10"]]


async def test_pairs_are_read_page_by_page(serve: Serve) -> None:
    pages = [{"items": [{"id": 1}, {"id": 2}], "next_after": 2}, {"items": [], "next_after": None}]
    script = Script(*((200, page) for page in pages))
    async with ApiClient(await serve(script), KEY) as api:
        assert [pair async for pair in api.pairs("r")] == [{"id": 1}, {"id": 2}]
    assert [query["after"] for _, _, query in script.requests] == ["0", "2"]


async def test_creating_is_never_tried_twice(serve: Serve) -> None:
    """A POST that creates may have worked although its answer was lost."""
    script = Script(BUSY)
    async with ApiClient(await serve(script), KEY) as api:
        with pytest.raises(errors.UpstreamUnavailable):
            await api.post("/v1/runs", json.loads("{}"))
    assert len(script.requests) == 1
