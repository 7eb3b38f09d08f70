"""Who sends a request again with its key is given the answer that was made for it."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.responses import JSONResponse

from services.generator.answers_by_key import Making

HI = [{"role": "user", "content": "Hi"}]


async def ask(replica: Any, key: str, *, client: str = "api", **more: Any) -> Any:
    headers = {"x-request-key": key, **more.pop("headers", {})}
    body = {"model": "policy", "messages": HI, **more}
    return await getattr(replica, client).post("/v1/chat/completions", json=body, headers=headers)


async def test_the_same_key_is_the_same_answer_to_the_byte(replica: Any) -> None:
    first, again = await ask(replica, "k"), await ask(replica, "k")
    assert first.content == again.content
    assert "x-rewardloop-given-again" not in first.headers
    assert again.headers == {**first.headers, "x-rewardloop-given-again": "1"}
    assert first.json()["weight_version"] == "m0"
    await ask(replica, "other")
    assert len(replica.server.requests) == 2


async def test_without_a_key_or_streamed_nothing_is_kept(replica: Any) -> None:
    for _ in range(2):
        await replica.chat()
        assert "data: [DONE]" in (await ask(replica, "k", stream=True)).text
    assert len(replica.server.requests) == 4


async def test_two_at_once_are_one_call(replica: Any) -> None:
    replica.server.may_answer.clear()
    both = [asyncio.create_task(ask(replica, "k")) for _ in range(2)]
    await replica.server.arrived.wait()
    replica.server.may_answer.set()
    first, second = await asyncio.gather(*both)
    assert first.json() == second.json()
    assert len(replica.server.requests) == 1


async def test_another_body_under_a_key_is_a_conflict(replica: Any) -> None:
    await ask(replica, "k")
    refused = await ask(replica, "k", n=2)
    assert (refused.status_code, refused.json()["error"]["type"]) == (409, "conflict")


async def test_a_failure_is_not_given_again(replica: Any) -> None:
    assert (await ask(replica, "k", user="fail")).status_code == 400
    assert (await ask(replica, "k", user="fail")).status_code == 400
    assert len(replica.server.requests) == 2


@pytest.mark.parametrize("n", [None, 2])
async def test_an_answer_that_lacks_a_choice_is_made_again(replica: Any, n: int | None) -> None:
    replica.server.num_missing = 1
    first = (await ask(replica, "k", n=n)).json()
    assert len(first["choices"]) == (n or 1) - 1
    replica.server.num_missing = 0
    assert len((await ask(replica, "k", n=n)).json()["choices"]) == (n or 1)


async def test_an_answer_is_not_given_again_after_a_swap(replica: Any) -> None:
    assert (await ask(replica, "k")).json()["weight_version"] == "m0"
    assert (await replica.activate("m1")).status_code == 200
    assert (await ask(replica, "k")).json()["weight_version"] == "m1"
    assert len(replica.server.requests) == 2


async def test_an_overdue_call_is_overtaken(replica: Any) -> None:
    replica.server.may_answer.clear()
    first = asyncio.create_task(ask(replica, "k"))
    await replica.server.arrived.wait()
    anew = asyncio.create_task(ask(replica, "k", headers={"x-request-anew": "1"}))
    async with asyncio.timeout(60):
        while len(replica.server.requests) < 2:
            await asyncio.sleep(0.001)
    replica.server.may_answer.set()
    assert [answer.status_code for answer in await asyncio.gather(first, anew)] == [200, 200]


async def test_the_engine_is_told_that_nobody_wants_an_answer_any_more(replica: Any) -> None:
    """vLLM would work on after a mere cancellation."""
    heard = []

    async def serve(receive: Any, _: Any) -> None:
        heard.append(await receive())

    making = Making(serve, 1)
    task = asyncio.create_task(making.made())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert heard == [{"type": "http.disconnect"}]


async def test_a_key_opens_nothing_without_the_api_key(replica: Any) -> None:
    await ask(replica, "k")
    assert (await ask(replica, "k", client="stranger")).status_code == 401


class Connection:
    """The gate is called as a server does, so that a caller can go away."""

    def __init__(self, replica: Any, key: str) -> None:
        self.gone = asyncio.Event()
        self.sent: list[dict[str, Any]] = []
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "method": "POST",
            "path": "/v1/chat/completions",
            "raw_path": b"/v1/chat/completions",
            "query_string": b"",
            "headers": [
                (b"authorization", replica.api.headers["authorization"].encode()),
                (b"content-type", b"application/json"),
                (b"x-request-key", key.encode()),
            ],
        }
        self._body: bytes | None = b'{"messages": [{"role": "user", "content": "Hi"}]}'
        self._app = replica.app

    async def run(self) -> None:
        await self._app(self._scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)


async def test_a_call_is_finished_though_its_caller_went_away(replica: Any) -> None:
    replica.server.may_answer.clear()
    caller = Connection(replica, "k")
    running = asyncio.create_task(caller.run())
    await replica.server.arrived.wait()
    caller.gone.set()
    await running
    assert caller.sent == []
    replica.server.may_answer.set()
    again = Connection(replica, "k")
    await again.run()
    assert again.sent[0]["status"] == 200
    assert len(replica.server.requests) == 1


@pytest.fixture
def cut(replica: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets the engine lose the end of its answer so many times."""

    def so_often(times: int) -> None:
        render, left = JSONResponse.__call__, [times]

        async def shorter(self: JSONResponse, scope: Any, receive: Any, send: Any) -> None:
            async def send_half(message: Any) -> None:
                if message.get("body") and left[0]:
                    left[0] -= 1
                    message = {**message, "body": message["body"][:10]}
                await send(message)

            await render(self, scope, receive, send_half)

        monkeypatch.setattr(JSONResponse, "__call__", shorter)

    return so_often


async def test_half_an_answer_is_not_kept(replica: Any, cut: Callable[[int], None]) -> None:
    await replica.chat()  # once the canaries are through
    cut(1)
    assert (await ask(replica, "k")).status_code == 503
    whole = await ask(replica, "k")
    assert whole.json()["choices"][0]["message"]["content"] == "Hello."
