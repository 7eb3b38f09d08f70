"""The layer in front of a service: key, share, size, time and JSON, in this order."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from rewardloop.errors import RewardloopError
from services.front import ErrorForm, Front, Limits, one_key
from services.request_body import BodyRule

KEY = "a-key-of-16-chars"
BODY = BodyRule(1000, total_seconds=5, idle_seconds=0.2)
FORM = ErrorForm(RewardloopError.problem)


@pytest.fixture(autouse=True)
def soon_drained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.request_body.DRAINED_BYTES", 10_000)
    monkeypatch.setattr("services.request_body.DRAINED_SECONDS", 0.1)


class Service:
    """Answers with what it was sent, and counts what came through."""

    def __init__(self, **limits: Any) -> None:
        self.num_requests = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        by_path = {re.compile("/file"): BodyRule(4000, is_json=False)}
        made = Limits(**{"in_flight": 10, "per_second": 1000, "body": BODY, **limits})
        made = Limits(made.in_flight, made.per_second, made.body, by_path)
        self.front = Front(self._serve, one_key(KEY), made, FORM, frozenset({"/health"}))

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.num_requests += 1
        await self.may_answer.wait()
        request = Request(scope, receive)
        if scope["path"] == "/echo":
            await JSONResponse(await request.json())(scope, receive, send)
        elif scope["path"] == "/file":
            size = len(await request.body())
            await PlainTextResponse(str(size))(scope, receive, send)
        else:
            await PlainTextResponse("ok")(scope, receive, send)

    async def ask(
        self, method: str = "POST", path: str = "/echo", key: str | None = KEY, **how: Any
    ) -> httpx.Response:
        transport = httpx.ASGITransport(self.front)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        headers |= how.pop("headers", {})
        async with httpx.AsyncClient(transport=transport, base_url="http://front") as client:
            return await client.request(method, path, headers=headers, **how)


class Endless:
    """A body that never ends, which counts what was taken of it."""

    def __init__(self) -> None:
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self.taken += 1
            yield b"x" * 100


async def raw(
    service: Service, path: str, *headers: tuple[bytes, bytes], key: str = KEY
) -> tuple[list[Message], int]:
    """What is sent, and how many chunks were taken, where the body never ends."""
    taken = 0
    sent: list[Message] = []

    async def receive() -> Message:
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": b"x" * 1000, "more_body": True}

    async def send(message: Message) -> None:
        sent.append({**message, "taken": taken})

    scope: Scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": [(b"authorization", f"Bearer {key}".encode()), *headers],
    }
    await service.front(scope, receive, send)
    return sent, taken


CHUNKED = (b"transfer-encoding", b"chunked")
JSON = (b"content-type", b"application/json")


@pytest.mark.parametrize("key", [None, "wrong", "", KEY + "x"])
async def test_no_body_is_looked_at_without_the_key(key: str | None) -> None:
    service = Service()
    answer = await service.ask(key=key, json={"a": 1})
    assert (answer.status_code, service.num_requests) == (401, 0)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["type"] == "urn:rewardloop:error:unauthorized"


async def test_the_refusal_is_sent_before_a_byte_of_the_body_is_read() -> None:
    sent, taken = await raw(Service(), "/echo", CHUNKED, JSON, key="wrong")
    assert [message.get("status") for message in sent] == [401, None, None]
    assert sent[1]["taken"] == 0
    assert (b"connection", b"close") in sent[0]["headers"]
    assert taken == 11  # thrown away, so that the client can read the answer


async def test_an_announced_size_is_refused_before_a_byte_is_read() -> None:
    sent, _ = await raw(Service(), "/echo", (b"content-length", b"999999999"), JSON)
    assert (sent[0]["status"], sent[1]["taken"]) == (413, 0)


async def test_a_body_of_unknown_size_is_read_up_to_its_bound() -> None:
    service = Service()
    sent, _ = await raw(service, "/echo", CHUNKED, JSON)
    assert (sent[0]["status"], sent[1]["taken"], service.num_requests) == (413, 2, 0)


async def test_a_route_may_have_a_rule_of_its_own() -> None:
    service = Service()
    assert (await service.ask(path="/file", content=b"[" * 3000)).text == "3000"
    assert (await service.ask(path="/file", content=b"x" * 4001)).status_code == 413


async def test_an_open_path_wants_no_key() -> None:
    service = Service()
    assert (await service.ask("GET", "/health", key=None)).text == "ok"
    assert (await service.ask("GET", "/health/", key=None)).status_code == 401


async def test_a_sound_body_reaches_the_route_unchanged() -> None:
    answer = await Service().ask(json={"a": [1, {"b": "é"}]})
    assert answer.json() == {"a": [1, {"b": "é"}]}
    assert "connection" not in answer.headers


async def test_what_is_no_sound_json_never_reaches_a_route() -> None:
    service = Service()
    headers = {"content-type": "application/json"}
    for body in (b"[" * 500, b"NaN", b"{", b'{"a": 1, "a": 1}'):
        assert (await service.ask(content=body, headers=headers)).status_code == 422
    assert (await service.ask(content=b"{}")).status_code == 415
    assert service.num_requests == 0


async def test_a_body_that_stops_half_way_is_answered_and_closed() -> None:
    service = Service()
    sent: list[Message] = []
    first = [{"type": "http.request", "body": b'{"a"', "more_body": True}]

    async def receive() -> Message:
        if first:
            return first.pop()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"authorization", f"Bearer {KEY}".encode()), (b"content-length", b"9"), JSON]
    scope: Scope = {"type": "http", "method": "POST", "path": "/echo", "headers": headers}
    await service.front(scope, receive, send)
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]
    assert sent[-1] == {"type": "http.response.body", "body": b""}


async def test_a_key_may_have_so_many_requests_in_flight() -> None:
    service = Service(in_flight=2)
    service.may_answer.clear()
    held = [asyncio.create_task(service.ask(json={})) for _ in range(2)]
    while service.num_requests < 2:
        await asyncio.sleep(0.01)
    refused = await service.ask(json={})
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
    assert "REWARDLOOP_MAX_REQUESTS_IN_FLIGHT" in refused.json()["detail"]
    service.may_answer.set()
    assert [answer.status_code for answer in await asyncio.gather(*held)] == [200, 200]
    assert (await service.ask(json={})).status_code == 200


async def test_a_key_may_send_so_many_requests_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("services.front.time.monotonic", lambda: now)
    service = Service(per_second=4)
    statuses = [(await service.ask(json={})).status_code for _ in range(6)]
    assert statuses == [200] * 4 + [429] * 2
    now = 0.5  # two more
    statuses = [(await service.ask(json={})).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    assert (await service.ask(json={}, key="wrong")).status_code == 401


async def test_a_websocket_is_closed() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    await Service().front({"type": "websocket", "path": "/", "headers": []}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]
