"""OpenAI-compatible routes over a judging engine.

    POST /v1/chat/completions   model "judge": the judgements of the last turn
    GET  /v1/models

Each choice carries, beside its message, a `judgement` object: status (`scored`
or `unscored`), score, reason, mode, rubric_version, judge_version. A request with
`compare_with`, a second response, gets a `comparison` instead: status (`decided`
or `undecided`), preference, and the rest alike. Streamed, either comes with the
choice's last chunk. Each judge stays stateless: any number of them may stand in
front of one engine.
"""

import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse

from rewardloop import telemetry
from rewardloop.clients.completions import choices_of, text_of, usage_of
from rewardloop.clients.http import call, connect, error_of
from rewardloop.config import Settings
from rewardloop.errors import (
    InvalidInput,
    RewardloopError,
    Unauthorized,
    UpstreamMismatch,
    UpstreamUnavailable,
)
from rewardloop.method import comparison, rubric
from rewardloop.method.enclosure import split_response
from rewardloop.records import JudgementMode, Message
from services.judge.schemas import JudgeRequest
from services.web import add_common_routes, add_error_handlers, key_guard, keys_given_once

UPSTREAM_SECONDS = 240.0
UPSTREAM_RETRY_SECONDS = 20.0


def make_app(settings: Settings) -> FastAPI:
    guard = key_guard(settings.api_key.get_secret_value())
    upstream = connect(
        settings.judge_upstream_url,
        _upstream_key(settings),
        timeout_seconds=UPSTREAM_SECONDS,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await upstream.aclose()

    app = FastAPI(
        title="Rewardloop judge", lifespan=lifespan, dependencies=[Depends(keys_given_once)]
    )
    add_common_routes(app, guard)
    add_error_handlers(app, RewardloopError.openai)

    @app.get("/v1/models", dependencies=[Depends(guard)])
    async def models() -> dict[str, Any]:
        model = {"id": "judge", "object": "model", "created": 0, "owned_by": "rewardloop"}
        return {"object": "list", "data": [model]}

    @app.post("/v1/chat/completions", dependencies=[Depends(guard)], response_model=None)
    async def judge(request: JudgeRequest) -> dict[str, Any] | StreamingResponse:
        body = upstream_request(request, settings.judge_upstream_model)
        if request.stream:
            lines = _stream(upstream, body, request)
            first = await anext(lines)  # an error comes before the headers are sent
            return StreamingResponse(_chain(first, lines), media_type="text/event-stream")
        with _own_key_refused(upstream.base_url):
            answer = await call(
                upstream,
                "POST",
                "/v1/chat/completions",
                retry_seconds=UPSTREAM_RETRY_SECONDS,
                json=body,
            )
        return _judged(answer, request, upstream.base_url)

    return app


def _upstream_key(settings: Settings) -> str:
    if settings.judge_upstream_key:  # an empty one is none
        return settings.judge_upstream_key.get_secret_value()
    generators = [url.rstrip("/") for url in settings.generator_urls]
    if settings.judge_upstream_url.rstrip("/") in generators:
        return settings.api_key.get_secret_value()
    return "none"  # ours is nobody else's business


@contextmanager
def _own_key_refused(engine: object) -> Iterator[None]:
    """The engine's refusal of this service's key is no refusal of the caller's."""
    try:
        yield
    except Unauthorized as error:
        raise UpstreamMismatch(
            f"the judging engine {engine} refused the key; set REWARDLOOP_JUDGE_UPSTREAM_KEY to "
            "the one it wants"
        ) from error


def upstream_request(request: JudgeRequest, model: str) -> dict[str, Any]:
    """What the engine is asked: the rendered rubric, and its form where that is forced.

    Raises:
        InvalidInput: the conversation does not end in a response to a user.
    """
    compares = request.compare_with is not None
    body: dict[str, Any] = {
        "model": model,
        "messages": _rendered(request),
        "n": request.n,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_tokens": request.max_completion_tokens or request.max_tokens,
    }
    if request.judgement_mode is JudgementMode.CONSTRAINED:
        pattern = comparison.CONSTRAINED_PATTERN if compares else rubric.CONSTRAINED_PATTERN
        body["structured_outputs"] = {"regex": pattern}
    if request.stream:
        body |= {"stream": True, "stream_options": request.stream_options.model_dump()}
    return body


def _rendered(request: JudgeRequest) -> list[Message]:
    conversation = [turn.as_message() for turn in request.messages]
    try:
        if request.compare_with is None:
            return rubric.render(conversation, request.judgement_mode)
        asked, first = split_response(conversation)
        return comparison.render(asked, first, request.compare_with, request.judgement_mode)
    except ValueError as error:
        raise InvalidInput(str(error)) from error


def _judged(answer: dict[str, Any], request: JudgeRequest, engine: object) -> dict[str, Any]:
    choices = choices_of(answer, request.n, f"the judging engine {engine}")
    version = _judge_version(answer)
    for choice in choices:
        choice |= _reading(text_of(choice), choice.get("finish_reason"), request, version)
    prompt_tokens, completion_tokens = usage_of(answer)
    telemetry.TOKENS.labels("judge", "completion").inc(completion_tokens)
    telemetry.TOKENS.labels("judge", "prompt").inc(prompt_tokens)
    return {**answer, "choices": choices, "model": "judge"}


def _judge_version(answer: dict[str, Any]) -> str:
    """Our generators stamp their weight version; another server is known by its model's name."""
    return str(answer.get("weight_version") or answer.get("model") or "unknown")


def _reading(
    text: str, finish_reason: str | None, request: JudgeRequest, judge_version: str
) -> dict[str, dict[str, Any]]:
    """What a choice gains: its judgement or its comparison."""
    if request.compare_with is None:
        return {"judgement": judgement(text, finish_reason, request.judgement_mode, judge_version)}
    return {"comparison": compared(text, finish_reason, request.judgement_mode, judge_version)}


def judgement(
    text: str, finish_reason: str | None, mode: JudgementMode, judge_version: str
) -> dict[str, Any]:
    """The parsed form of one written judgement."""
    verdict = rubric.parse(text, finish_reason)
    telemetry.JUDGEMENTS.labels(verdict.reason or "scored").inc()
    return {
        "status": "unscored" if verdict.score is None else "scored",
        "score": verdict.score,
        "reason": verdict.reason,
        "mode": mode,
        "rubric_version": rubric.RUBRIC_VERSION,
        "judge_version": judge_version,
    }


def compared(
    text: str, finish_reason: str | None, mode: JudgementMode, judge_version: str
) -> dict[str, Any]:
    """The parsed form of one written comparison. No judgement, so not counted as one."""
    preference, reason = comparison.parse(text, finish_reason)
    return {
        "status": "undecided" if preference is None else "decided",
        "preference": preference,
        "reason": reason,
        "mode": mode,
        "rubric_version": comparison.COMPARISON_VERSION,
        "judge_version": judge_version,
    }


async def _chain(first: str, rest: AsyncIterator[str]) -> AsyncIterator[str]:
    yield first
    async for line in rest:
        yield line


async def _stream(
    upstream: httpx.AsyncClient, body: dict[str, Any], request: JudgeRequest
) -> AsyncIterator[str]:
    """The engine's chunks, each choice's last one with its judgement or comparison."""
    texts: dict[int, str] = {}
    try:
        async with upstream.stream("POST", "/v1/chat/completions", json=body) as answer:
            if not answer.is_success:
                await answer.aread()
                with _own_key_refused(upstream.base_url):
                    raise error_of(answer)
            async for line in _events(answer):
                if line.startswith("data: ") and line != "data: [DONE]":
                    chunk = json.loads(line.removeprefix("data: "))
                    line = "data: " + json.dumps(_judged_chunk(chunk, texts, request))
                if line:
                    yield line + "\n\n"
    except httpx.TransportError as error:
        raise UpstreamUnavailable(f"the judging engine does not answer: {error}") from error


async def _events(answer: httpx.Response) -> AsyncIterator[str]:
    """The server-sent events of a stream. (httpx's own lines also end at U+2028 and the
    like, which JSON may hold unescaped.)"""
    pending = b""
    async for chunk in answer.aiter_bytes():
        *events, pending = (pending + chunk).split(b"\n\n")
        for event in events:
            yield event.decode()
    if pending.strip():
        yield pending.decode()


def _judged_chunk(
    chunk: dict[str, Any], texts: dict[int, str], request: JudgeRequest
) -> dict[str, Any]:
    for choice in chunk.get("choices", []):
        index = choice["index"]
        texts[index] = texts.get(index, "") + (choice["delta"].get("content") or "")
        if choice.get("finish_reason"):
            choice |= _reading(
                texts[index], choice["finish_reason"], request, _judge_version(chunk)
            )
    return {**chunk, "model": "judge", "created": chunk.get("created", int(time.time()))}
