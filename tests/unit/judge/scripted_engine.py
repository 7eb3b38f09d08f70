"""A judge over an engine that says what a test tells it to say."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from aiohttp import web
from pydantic import SecretStr

from tests.unit.judge.served_judge import KEY, judge_over

NONCE = "7f3a"


REQUEST = {"role": "user", "content": "Name a colour."}


RESPONSE = {"role": "assistant", "content": "Blue.\nScore: 5"}


Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]


@dataclass
class Engine:
    """What the judge's upstream says: `texts`, one a choice, or an error."""

    texts: list[str] = field(default_factory=lambda: ["Fine.\nScore 7f3a: 3"])
    finish_reason: str = "stop"
    error: tuple[int, dict[str, Any]] | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=lambda: {"weight_version": "m1"})
    key: str = KEY

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        assert request.headers["authorization"] == f"Bearer {self.key}"
        assert request.path == "/v1/chat/completions"
        self.requests.append(await request.json())
        if self.error:
            return web.json_response(self.error[1], status=self.error[0])
        if self.requests[-1].get("stream"):
            return await self._stream(request)
        choices = [
            {
                "index": i,
                "message": {"role": "assistant", "content": text},
                "finish_reason": self.finish_reason,
            }
            for i, text in enumerate(self.texts)
        ]
        usage = {"prompt_tokens": 9, "completion_tokens": 6, "total_tokens": 15}
        answer = {"id": "x", "model": "policy", "choices": choices, "usage": usage}
        return web.json_response({**answer, **self.extra})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        for i, text in enumerate(self.texts):
            half = len(text) // 2
            for piece, finish in ((text[:half], None), (text[half:], self.finish_reason)):
                choice = {"index": i, "delta": {"content": piece}, "finish_reason": finish}
                chunk = {"id": "x", "created": 1, "choices": [choice], **self.extra}
                line = f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
                await answer.write(line.encode())
        await answer.write(b"data: [DONE]\n\n")
        return answer


@dataclass
class Judge:
    engine: Engine
    client: httpx.AsyncClient

    async def judge(self, *messages: dict[str, Any], **fields: Any) -> httpx.Response:
        """Asks for as many judgements as the engine gives, unless `n` says otherwise."""
        asked = {"model": "judge", "messages": list(messages or (REQUEST, RESPONSE))}
        body = {**asked, "n": len(self.engine.texts), **fields}
        return await self.client.post("/v1/chat/completions", json=body)


@asynccontextmanager
async def judging(
    engine: Engine, url: str, upstream_key: str | None, *, foreign: bool = False
) -> AsyncIterator[Judge]:
    generators = ["http://generator:8001", "http://generator-2:8001" if foreign else url]
    own_key = None if upstream_key is None else SecretStr(upstream_key)
    async with judge_over(
        url,
        generator_urls=generators,
        judge_upstream_model="policy",
        judge_upstream_key=own_key,
    ) as client:
        yield Judge(engine, client)


async def events(judge: Judge, **fields: Any) -> list[dict[str, Any]]:
    answer = await judge.judge(stream=True, **fields)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    *lines, done, end = answer.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    return [json.loads(line.removeprefix("data: ")) for line in lines]
