"""The ASGI middleware in front of vLLM's routes.

Owns who may call what, which weights answer, and how weights change. Invariants:

- only the routes in `OPEN`, `PUBLIC` and `ADMIN` exist; each but `OPEN` needs its key, and
  `services.front` looks at it, and at the body's size and time, before anything else;
- only the fields of a request that `fields` lists reach vLLM, within their bounds;
- one completion is made by one version, the current one or the one that it names, and says
  which;
- a conversation's text never becomes control tokens (see `encoding`);
- requests never meet weights that were not verified: after a start, and from the moment a
  swap begins, new requests wait here until the canaries agree.

It reaches the engine by `scope["app"].state.engine_client`, so vLLM's
development routes stay off.
"""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rewardloop import checkpoints, telemetry
from rewardloop.config import load_settings
from rewardloop.errors import (
    InvalidInput,
    MethodNotAllowed,
    NotFound,
    PromptTooLong,
    RewardloopError,
    Unauthorized,
    UnknownModel,
    UpstreamUnavailable,
)
from services.front import ALL_SCOPES, Caller, ErrorForm, Front, Limits, has_key, require_key
from services.generator import committed, naming
from services.generator.admission import Admission
from services.generator.answers_by_key import AnswersByKey
from services.generator.encoding import CHAT, encoded, ending_at
from services.generator.ending import Ending
from services.generator.leaving import Leaving
from services.generator.readiness import Readiness
from services.generator.registration import Registration
from services.generator.sanitize import sanitize
from services.generator.serving import adapters_of
from services.generator.stamp import Stamp
from services.generator.swap import Swapper
from services.named import work_of_request
from services.request_body import BodyRule, replay
from services.slow_headers import close_slow_ones

INITIAL_VERSION = "REWARDLOOP_INITIAL_VERSION"
"""Environment variable by which the launcher says which version vLLM loads."""
INITIAL_MANIFEST = "REWARDLOOP_INITIAL_MANIFEST_SHA256"
"""And the digest of its manifest in Postgres."""
INITIAL_STATE = "REWARDLOOP_INITIAL_STATE"
"""And what the file system said of the folder when it was verified."""
MAX_NOTICE_SECONDS = 60
HEALTH_SECONDS = 1.0
"""So long /health waits for a replica that is being verified; probes ask again."""

OPEN = {("GET", "/health"), ("GET", "/ready")}
PUBLIC = {
    ("GET", "/metrics"),
    ("GET", "/v1/models"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
}
ADMIN = {("GET", "/admin/weights"), ("POST", "/admin/activate")}
OPEN_PATHS, PUBLIC_PATHS, ADMIN_PATHS = (
    frozenset(path for _, path in routes) for routes in (OPEN, PUBLIC, ADMIN)
)
BODY = BodyRule(8 * 2**20, mend="send a shorter prompt")
_DIGEST = re.compile("[0-9a-f]{64}")


class Gate:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._settings = load_settings("generator")
        self._front = Front(
            self._route,
            self._authenticate,
            Limits(
                self._settings.max_requests_in_flight, self._settings.max_requests_per_second, BODY
            ),
            ErrorForm(RewardloopError.openai, "application/json"),
            OPEN_PATHS,
        )
        self._admission = Admission()
        self._readiness = Readiness()
        self._answers = AnswersByKey()
        self._swapper = Swapper(
            app,
            self._admission,
            self._settings.checkpoint_root,
            os.environ[INITIAL_VERSION],
            os.environ.get(INITIAL_MANIFEST) or None,
            os.environ.get(INITIAL_STATE),
            self._settings.swap_drain_seconds,
            self._readiness,
            adapters_of(self._settings),
        )
        self._leaving = Leaving(
            self._readiness,
            self._admission,
            notice_seconds=self._settings.notice_seconds,
            drain_seconds=self._settings.stop_drain_seconds,
            swap_ended=self._swapper.until_idle,
        )
        self._registration = Registration(self._settings, self._swapper, self._readiness)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, self._proving(scope, send))
            return
        if scope["type"] == "http":
            telemetry.name_work(work_of_request(scope))
        await self._front(scope, receive, send)

    async def _authenticate(self, scope: Scope) -> Caller:
        """The admin key opens `/admin`, the API key the rest; neither the other's."""
        api, admin = self._settings.api_key, self._settings.admin_key
        if scope["path"] in ADMIN_PATHS or has_key(scope, admin.get_secret_value()):
            require_key(scope, admin.get_secret_value())
            if scope["path"] in PUBLIC_PATHS:
                raise Unauthorized("the admin key opens /admin alone; send the API key")
            return Caller("admin", frozenset({"admin"}))
        require_key(scope, api.get_secret_value())
        return Caller("api", ALL_SCOPES - {"admin"})

    def _proving(self, scope: Scope, send: Send) -> Send:
        """Begin to verify what the engine holds as soon as it can answer, before anybody asks.

        By then the server has installed its own handlers of signals.
        """

        async def watched(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown"):
                await self._registration.end()
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                self._swapper.begin_proof(scope["app"])
                self._leaving.heed_sigterm()
                self._registration.begin(scope["app"])

        return watched

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What stands behind the front."""
        route = (scope["method"], scope["path"])
        try:
            if route == ("GET", "/ready"):
                self._swapper.require_ready()
                await self._app({**scope, "path": "/health", "raw_path": b"/health"}, receive, send)
            elif route in OPEN:
                await self._swapper.require_proven(scope["app"], HEALTH_SECONDS)
                await self._app(scope, receive, send)
            elif route in PUBLIC:
                await self._public(scope, receive, send)
            elif route in ADMIN:
                await _answer(send, 200, await self._admin(route, scope, receive))
            else:
                raise _not_here(*route)
        except PromptTooLong as error:
            await _answer(send, 400, _as_vllm_tells_it(error))

    async def _public(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "GET":
            await self._app(scope, receive, send)
            return
        chat = scope["path"] == CHAT
        body, dropped = sanitize(await _body(receive), chat=chat)
        body = await encoded(scope["path"], body, scope["app"].state.engine_client)
        await self._swapper.require_proven(scope["app"])
        asked = json.loads(body)
        named = naming.named_version(asked)

        async def serve(receive: Receive, send: Send) -> None:
            if named is not None:
                await self._have(scope["app"], named)
            await self._complete(scope, body, dropped, named, receive, send)

        def version() -> str:
            return named or self._swapper.version

        await self._answers.respond(scope, body, asked, receive, send, version=version, serve=serve)

    async def _have(self, fastapi_app: Any, named: str) -> None:
        async def committed_digest(version: str) -> str | None:
            return await committed.manifest_digest(self._settings, version)

        try:
            await self._swapper.have(fastapi_app, named, committed_digest)
        except NotFound as error:
            raise UnknownModel(error.message) from error

    async def _complete(
        self,
        scope: Scope,
        body: bytes,
        dropped: list[str],
        named: str | None,
        receive: Receive,
        send: Send,
    ) -> None:
        ending = Ending()
        async with _told_in_its_stream(ending, send), self._admission.request(ending):
            self._swapper.require_sound()
            await self._swapper.holding.announce(scope["app"].state.engine_client)
            with self._swapper.holding.answering(named) as (version, model):
                body = ending_at(body, self._swapper.holding.extra_stop_ids)
                body = naming.asking(model, named, body)
                stamp = Stamp(ending.sending(send), version, dropped)
                receive = ending.receiving(replay(body, receive))
                await self._app(_with_length(scope, body), receive, stamp)
        telemetry.REQUESTS.labels(scope["path"], str(stamp.status)).inc()
        telemetry.TOKENS.labels("engine", "completion").inc(stamp.completion_tokens)
        telemetry.TOKENS.labels("engine", "prompt").inc(stamp.prompt_tokens)
        telemetry.SAMPLES.inc(stamp.num_choices)

    async def _admin(
        self, route: tuple[str, str], scope: Scope, receive: Receive
    ) -> dict[str, Any]:
        if route == ("GET", "/admin/weights"):
            return await self._swapper.weights(scope["app"])
        version, digest, notice_seconds = _wanted(await _body(receive))
        checkpoints.folder_of(self._settings.checkpoint_root, version)  # an id, or refused here
        digest = digest or await committed.manifest_digest(self._settings, version)
        swapping = self._swapper.activate(scope["app"], version, digest, notice_seconds)
        swap = asyncio.ensure_future(swapping)
        return await asyncio.shield(swap)  # its end is sound, whatever becomes of this request


def _wanted(body: bytes) -> tuple[str, str | None, float]:
    """The version to activate, the digest of its manifest where the caller knows it, and for
    how long routers shall see first that this replica is not ready."""
    try:
        wanted = json.loads(body)
        version, digest = wanted["version"], wanted.get("manifest_sha256")
        notice = wanted.get("notice_seconds", 0)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInput('the body must be {"version": "<version id>"}') from error
    if digest is not None and not (isinstance(digest, str) and _DIGEST.fullmatch(digest)):
        raise InvalidInput("manifest_sha256 must be a sha256 in 64 hex digits; leave it out")
    is_number = isinstance(notice, int | float) and not isinstance(notice, bool)
    if not is_number or not 0 <= notice <= MAX_NOTICE_SECONDS:
        raise InvalidInput(f"notice_seconds must be a number from 0 to {MAX_NOTICE_SECONDS}")
    return str(version), digest, float(notice)


@asynccontextmanager
async def _told_in_its_stream(ending: Ending, send: Send) -> AsyncIterator[None]:
    """An answer whose status is sent has no other place for an error than its stream."""
    try:
        yield
    except UpstreamUnavailable:
        if not ending.began:
            raise
        await ending.tell(send)


def _as_vllm_tells_it(error: PromptTooLong) -> dict[str, Any]:
    """vLLM finds some prompts too long and the gate others; clients see no difference."""
    told = {"message": error.message, "type": "BadRequestError", "param": "input_tokens"}
    return {"error": {**told, "code": 400}}


def _not_here(method: str, path: str) -> RewardloopError:
    allowed = sorted(known for known, at in OPEN | PUBLIC | ADMIN if at == path)
    if not allowed:
        return NotFound(f"{method} {path} is not served here")
    told = f"{method} {path} is not served here; use {' or '.join(allowed)}"
    return MethodNotAllowed(told, allowed=allowed)


async def _body(receive: Receive) -> bytes:
    """The body, which the front has read and looked at."""
    message = await receive()
    found: bytes = message.get("body", b"")
    return found


def _with_length(scope: Scope, body: bytes) -> Scope:
    headers = [(k, v) for k, v in scope["headers"] if k not in (b"content-length",)]
    return {**scope, "headers": [*headers, (b"content-length", str(len(body)).encode())]}


async def _answer(send: Send, status: int, body: dict[str, Any]) -> None:
    payload = json.dumps(body).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(payload)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": payload})


close_slow_ones()  # here, because vLLM imports this module before it chooses uvicorn's protocol
