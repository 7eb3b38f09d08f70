"""Who may call what, and what reaches the engine."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from services.generator import admission, sanitize

COMPLETIONS = ["/v1/chat/completions", "/v1/completions"]


async def test_health_is_open(replica: Any) -> None:
    assert (await replica.stranger.get("/health")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/metrics"),
        ("GET", "/v1/models"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
    ],
)
async def test_public_routes_need_the_api_key(replica: Any, method: str, path: str) -> None:
    assert (await replica.api.request(method, path, json={})).status_code == 200
    for client in (replica.stranger, replica.admin):
        refused = await client.request(method, path, json={})
        assert refused.status_code == 401
        assert refused.json()["error"]["type"] == "unauthorized"
    assert len(replica.server.requests) <= 1


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/admin/weights"), ("POST", "/admin/activate")]
)
async def test_admin_routes_need_the_admin_key(replica: Any, method: str, path: str) -> None:
    body = {"version": "m0"}
    assert (await replica.admin.request(method, path, json=body)).status_code == 200
    for client in (replica.stranger, replica.api):
        assert (await client.request(method, path, json=body)).status_code == 401


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer ", "Basic {key}", "{key}", "Bearer {key}x", "Bearer é"]
)
async def test_a_key_is_compared_whole(replica: Any, authorization: str) -> None:
    key = replica.api.headers["authorization"].removeprefix("Bearer ")
    headers = {"authorization": authorization.format(key=key).encode("latin-1")}
    assert (await replica.stranger.get("/v1/models", headers=headers)).status_code == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/collective_rpc"),
        ("POST", "/tokenize"),
        ("GET", "/docs"),
        ("GET", "/v1/models/"),
        ("GET", "//v1/models"),
        ("POST", "/admin/"),
    ],
)
async def test_other_routes_do_not_exist_even_where_the_server_has_them(
    replica: Any, method: str, path: str
) -> None:
    for client in (replica.api, replica.admin):
        refused = await client.request(method, f"http://replica{path}")
        assert refused.status_code == 404
        assert refused.json()["type"] == "urn:rewardloop:error:not-found"


@pytest.mark.parametrize(
    ("method", "path", "client", "allowed"),
    [
        ("GET", "/v1/chat/completions", "api", "POST"),
        ("PATCH", "/v1/models", "api", "GET"),
        ("POST", "/health", "stranger", "GET"),
        ("DELETE", "/admin/weights", "admin", "GET"),
        ("HEAD", "/admin/activate", "admin", "POST"),
    ],
)
async def test_another_method_is_answered_with_those_that_there_are(
    replica: Any, method: str, path: str, client: str, allowed: str
) -> None:
    refused = await getattr(replica, client).request(method, path)
    assert (refused.status_code, refused.headers["allow"]) == (405, allowed)
    assert replica.server.requests == []


async def test_a_websocket_gets_nowhere(replica: Any) -> None:
    sent: list[object] = []

    async def send(message: object) -> None:
        sent.append(message)

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/v1/realtime", "headers": []}
    await replica.app(scope, receive, send)
    assert all(message["type"] != "websocket.accept" for message in sent)  # type: ignore[index]


async def test_a_completion_says_which_weights_made_it(replica: Any) -> None:
    answer = await replica.chat(n=2)
    assert answer.status_code == 200
    assert answer.json()["weight_version"] == "m0"
    assert len(answer.json()["choices"]) == 2
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.headers["x-rewardloop-weight-version"] == "m0"
    assert "x-rewardloop-dropped" not in answer.headers


async def test_the_engine_is_told_its_version_once(replica: Any) -> None:
    await replica.chat()
    await replica.chat()
    await replica.weights()
    assert replica.engine.events == ["announce m0"]


async def test_an_engine_that_did_not_hear_its_version_is_told_again(
    replica: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hear = replica.engine.update_weight_version

    async def deaf(_: str) -> None:
        raise ConnectionError("engine restarting")

    monkeypatch.setattr(replica.engine, "update_weight_version", deaf)
    with pytest.raises(ConnectionError):
        await replica.chat()
    monkeypatch.setattr(replica.engine, "update_weight_version", hear)
    assert (await replica.weights())["version"] == "m0"


async def test_a_seed_is_dropped_where_it_would_kill_the_engine(
    replica: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sanitize, "_engine_takes_seeds", lambda: False)
    answer = await replica.chat(seed=7, temperature=0.5)
    assert answer.headers["x-rewardloop-dropped"] == "seed"
    (request,) = replica.server.requests
    assert "seed" not in request
    assert request["temperature"] == 0.5


async def test_a_seed_is_kept_where_the_engine_takes_it(
    replica: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sanitize, "_engine_takes_seeds", lambda: True)
    answer = await replica.chat(seed=7)
    assert "x-rewardloop-dropped" not in answer.headers
    assert replica.server.requests[0]["seed"] == 7


async def test_too_many_sequences_never_reach_the_engine(replica: Any) -> None:
    refused = await replica.chat(n=257)
    assert refused.status_code == 413
    assert refused.json()["error"]["type"] == "too-large"
    assert replica.server.requests == []


async def test_a_huge_body_is_refused(replica: Any) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(9):
            yield b" " * 2**20

    for content in (b" " * (8 * 2**20 + 1), body()):
        refused = await replica.api.post(
            "/v1/completions", content=content, headers={"content-type": "application/json"}
        )
        assert refused.status_code == 413
        assert refused.headers["connection"] == "close"
    assert (await replica.chat(user="x" * 500)).status_code == 200


@pytest.mark.parametrize("path", COMPLETIONS)
async def test_a_body_that_is_no_json_object_is_refused(replica: Any, path: str) -> None:
    for body in (b"", b"{", b"[]", b'"text"', b"\xff"):
        answer = await replica.api.post(
            path, content=body, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 422


async def test_every_streamed_chunk_says_which_weights_made_it(replica: Any) -> None:
    replica.server.content = 'He wrote:\n\ndata: {"a": 1}\u2028end'
    answer = await replica.chat(stream=True)
    events = answer.text.removesuffix("\n\n").split("\n\n")
    assert events.pop() == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert [chunk["weight_version"] for chunk in chunks] == ["m0", "m0"]
    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks] == (
        [replica.server.content] * 2
    )


async def test_an_engines_refusal_is_passed_on_unchanged(replica: Any) -> None:
    refused = await replica.chat(user="fail")
    assert refused.status_code == 400
    assert refused.json() == {"error": {"message": "no", "type": "BadRequestError"}}


async def test_what_was_answered_is_counted(replica: Any, metric: Callable[..., float]) -> None:
    def counts() -> list[float]:
        requests = {"path": "/v1/chat/completions", "status": "200"}
        return [
            metric("rewardloop_generator_requests_total", **requests),
            metric("rewardloop_samples_total"),
            metric("rewardloop_tokens_total", role="engine", kind="prompt"),
            metric("rewardloop_tokens_total", role="engine", kind="completion"),
        ]

    before = counts()
    await replica.chat(n=3)
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [1, 3, 7, 5]


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'"m1"', b"{"], ids=["none", "empty", "list", "text", "broken"]
)
async def test_activate_asks_for_a_version(replica: Any, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    refused = await replica.admin.post("/admin/activate", content=body, headers=headers)
    assert refused.status_code == 422
    told = refused.json()["detail"]
    assert '{"version": "<version id>"}' in told or "not JSON" in told


@pytest.mark.parametrize(
    ("version", "status"), [("../m1", 422), ("/etc", 422), ("m9", 404), ("M1", 422)]
)
async def test_activate_takes_ids_of_checkpoints(replica: Any, version: str, status: int) -> None:
    assert (await replica.activate(version)).status_code == status
    assert "reload" not in " ".join(replica.engine.events)


async def test_a_request_that_waited_too_long_is_sent_away(
    replica: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "HOLD_SECONDS", 0.02)
    replica.engine.may_reload.clear()
    swap = asyncio.create_task(replica.activate("m1"))
    await replica.engine.reloading.wait()
    refused = await replica.chat()
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "2"
    replica.engine.may_reload.set()
    assert (await swap).status_code == 200
    assert (await replica.chat()).status_code == 200
