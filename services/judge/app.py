"""OpenAI-compatible routes over a judging engine.

    POST /v1/chat/completions   model "judge": the judgements of the last turn
    GET  /v1/models

Each choice carries, beside its message, a `judgement` object: status (`scored`
or `unscored`), score, reason, mode, nonce, rubric_version, judge_version. A request with
`compare_with`, a second response, gets a `comparison` instead: status (`decided`
or `undecided`), preference, and the rest alike. By expectation (mode `expected`) either has
the `distribution` over its verdicts and their `mass` too, and a comparison the `probability` that
the response shown first is the better one. Streamed, either comes with the
choice's last chunk. A request names its `rubric`, so each judge stays stateless: any
number of them may stand in front of one engine.
"""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Annotated, Any

import httpx
from fastapi import Depends, FastAPI, Header
from fastapi.responses import JSONResponse, StreamingResponse

from rewardloop import __version__, telemetry
from rewardloop.clients.completions import usage_of
from rewardloop.clients.generator import POLICY
from rewardloop.clients.http import call, connect, error_of
from rewardloop.clients.judge import ENGINE, address_sha256
from rewardloop.clients.judged import judged, refused_fields_told
from rewardloop.config import Settings
from rewardloop.errors import Unauthorized, UpstreamMismatch, UpstreamUnavailable
from rewardloop.method.judge_call import JudgeCall
from services.front import Limits, one_key
from services.headers import SafeHeaders
from services.judge.answers_by_key import AnswersByKey, RequestKey
from services.judge.judge_call import body_of, call_of, counted
from services.judge.schemas import JudgeRequest
from services.judge.stream import JudgedStream, errors_told
from services.named import NamesWork
from services.request_body import BodyRule
from services.web import (
    add_common_routes,
    add_readiness,
    key_wanted,
    known_parameters,
    stand_in_front,
)

BODY = BodyRule(8 * 2**20)
UPSTREAM_SECONDS = 240.0
UPSTREAM_RETRY_SECONDS = 20.0


def make_app(settings: Settings) -> FastAPI:
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
        title="Rewardloop judge",
        version=__version__,
        lifespan=lifespan,
        dependencies=[Depends(known_parameters)],
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    stand_in_front(
        app,
        one_key(settings.api_key.get_secret_value()),
        Limits(settings.max_requests_in_flight, settings.max_requests_per_second, BODY),
        openai=True,
    )
    app.add_middleware(SafeHeaders)
    app.add_middleware(NamesWork)
    add_common_routes(app)
    add_readiness(app)

    @app.get("/v1/models", dependencies=[Depends(key_wanted)])
    async def models() -> dict[str, Any]:
        model = {"id": "judge", "object": "model", "created": 0, "owned_by": "rewardloop"}
        # Whoever samples from the same engine may ask it itself, by the same code.
        is_policy = settings.judge_upstream_model == POLICY
        engine = address_sha256(settings.judge_upstream_url) if is_policy else None
        return {"object": "list", "data": [{**model, ENGINE: engine}]}

    given = AnswersByKey()

    @app.post(
        "/v1/chat/completions",
        dependencies=[Depends(key_wanted)],
        response_model=None,
        responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    )
    async def judge(
        request: JudgeRequest, headers: Annotated[RequestKey, Header()]
    ) -> JSONResponse | StreamingResponse:
        asked = call_of(request, headers.x_request_key)
        body = body_of(asked, request, settings.judge_upstream_model)
        if request.stream:
            lines = _stream(upstream, body, asked)
            first = await anext(lines)  # an error comes before the headers are sent
            return StreamingResponse(errors_told(first, lines), media_type="text/event-stream")

        make = partial(_made, upstream, asked, body)
        answer, again = await given.get(headers, request, body, make)
        return AsciiJsonResponse(answer, headers=again)

    return app


async def _made(
    upstream: httpx.AsyncClient,
    asked: JudgeCall,
    body: dict[str, Any],
    upstream_headers: dict[str, str],
) -> dict[str, Any]:
    """What the engine writes to `body`, judged."""
    with _own_key_refused(upstream.base_url), refused_fields_told(asked, upstream.base_url):
        answer = await call(
            upstream,
            "POST",
            "/v1/chat/completions",
            retry_seconds=UPSTREAM_RETRY_SECONDS,
            json=body,
            headers=upstream_headers,
        )
    return _judged(answer, asked, upstream.base_url)


class AsciiJsonResponse(JSONResponse):
    """An engine's text may hold half a surrogate pair, which only an escape can carry."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode()


def _upstream_key(settings: Settings) -> str:
    if settings.judge_upstream_key:  # an empty one is none
        return settings.judge_upstream_key.get_secret_value()
    ours = (*settings.generator_urls, settings.data_url or "")
    generators = [url.rstrip("/") for url in ours if url]
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


def _judged(answer: dict[str, Any], asked: JudgeCall, engine: object) -> dict[str, Any]:
    found = judged(answer, asked, engine, see=counted)
    prompt_tokens, completion_tokens = usage_of(answer)
    telemetry.TOKENS.labels("judge", "completion").inc(completion_tokens)
    telemetry.TOKENS.labels("judge", "prompt").inc(prompt_tokens)
    return found


async def _stream(
    upstream: httpx.AsyncClient, body: dict[str, Any], asked: JudgeCall
) -> AsyncIterator[str]:
    """The engine's events, each choice's last one with its judgement or comparison."""
    events = JudgedStream(
        upstream.base_url, asked.num_choices, lambda *written: counted(asked.reading(*written))
    )
    try:
        async with upstream.stream("POST", "/v1/chat/completions", json=body) as answer:
            if not answer.is_success:
                await answer.aread()
                with _own_key_refused(upstream.base_url):
                    raise error_of(answer)
            async for event in events.events(answer.aiter_bytes()):
                yield event
    except httpx.TransportError as error:
        raise UpstreamUnavailable(f"the judging engine does not answer: {error}") from error
