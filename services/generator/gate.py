"""The ASGI middleware in front of vLLM's routes.

Owns who may call what, which weights answer, and how weights change. Invariants:

- only the routes in `OPEN`, `PUBLIC` and `ADMIN` exist; each but `OPEN` needs its key;
- one completion is made by one version of the weights, and says which;
- a conversation's text never becomes control tokens (see `encoding`);
- requests never meet weights that were not verified: after a start, and from the moment a
  swap begins, new requests wait here until the canaries agree.

It reaches the engine by `scope["app"].state.engine_client`, so vLLM's
development routes stay off.
"""

import asyncio
import hmac
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
    NotFound,
    PromptTooLong,
    RewardloopError,
    TooLarge,
    Unauthorized,
    UpstreamUnavailable,
)
from services.generator import committed
from services.generator.admission import Admission
from services.generator.answers_by_key import AnswersByKey
from services.generator.encoding import encoded, ending_at
from services.generator.ending import Ending
from services.generator.sanitize import sanitize
from services.generator.stamp import Stamp
from services.generator.swap import Swapper

INITIAL_VERSION = "REWARDLOOP_INITIAL_VERSION"
"""Environment variable by which the launcher says which version vLLM loads."""
INITIAL_MANIFEST = "REWARDLOOP_INITIAL_MANIFEST_SHA256"
"""And the digest of its manifest in Postgres."""
INITIAL_STATE = "REWARDLOOP_INITIAL_STATE"
"""And what the file system said of the folder when it was verified."""
HEALTH_SECONDS = 1.0
"""So long /health waits for a replica that is being verified; probes ask again."""

OPEN = {("GET", "/health")}
PUBLIC = {
    ("GET", "/metrics"),
    ("GET", "/v1/models"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
}
ADMIN = {("GET", "/admin/weights"), ("POST", "/admin/activate")}
MAX_BODY_BYTES = 8 * 2**20
_DIGEST = re.compile("[0-9a-f]{64}")


class Gate:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._settings = load_settings()
        self._admission = Admission()
        self._answers = AnswersByKey()
        self._swapper = Swapper(
            app,
            self._admission,
            self._settings.checkpoint_root,
            os.environ[INITIAL_VERSION],
            os.environ.get(INITIAL_MANIFEST) or None,
            os.environ.get(INITIAL_STATE),
            self._settings.swap_drain_seconds,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, self._proving(scope, send))
            return
        if scope["type"] != "http":
            return  # vLLM's websocket routes are not on the list
        try:
            await self._route(scope, receive, send)
        except PromptTooLong as error:
            await _answer(send, 400, _as_vllm_tells_it(error))
        except RewardloopError as error:
            await _answer(send, error.status, error.openai())

    def _proving(self, scope: Scope, send: Send) -> Send:
        """Begin to verify what the engine holds as soon as it can answer, before anybody asks."""

        async def watched(message: Message) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                self._swapper.begin_proof(scope["app"])

        return watched

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = (scope["method"], scope["path"])
        if route in OPEN:
            await self._swapper.require_proven(scope["app"], HEALTH_SECONDS)
            await self._app(scope, receive, send)
        elif route in PUBLIC:
            _require_key(scope, self._settings.api_key.get_secret_value())
            await self._public(scope, receive, send)
        elif route in ADMIN:
            _require_key(scope, self._settings.admin_key.get_secret_value())
            await _answer(send, 200, await self._admin(route, scope, receive))
        else:
            raise NotFound(f"{route[0]} {route[1]} is not served here")

    async def _public(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "GET":
            await self._app(scope, receive, send)
            return
        body, dropped = sanitize(await _read_body(receive))
        body = await encoded(scope["path"], body, scope["app"].state.engine_client)
        await self._swapper.require_proven(scope["app"])

        async def serve(receive: Receive, send: Send) -> None:
            await self._complete(scope, body, dropped, receive, send)

        await self._answers.respond(
            scope, body, receive, send, version=lambda: self._swapper.version, serve=serve
        )

    async def _complete(
        self, scope: Scope, body: bytes, dropped: list[str], receive: Receive, send: Send
    ) -> None:
        ending = Ending()
        async with _told_in_its_stream(ending, send), self._admission.request(ending):
            self._swapper.require_sound()
            version = await self._swapper.announce(scope["app"].state.engine_client)
            body = ending_at(body, self._swapper.extra_stop_ids)
            stamp = Stamp(ending.sending(send), version, dropped)
            receive = ending.receiving(_replay(body, receive))
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
        version, digest = _wanted(await _read_body(receive))
        checkpoints.folder_of(self._settings.checkpoint_root, version)  # an id, or refused here
        digest = digest or await committed.manifest_digest(self._settings, version)
        swap = asyncio.ensure_future(self._swapper.activate(scope["app"], version, digest))
        return await asyncio.shield(swap)  # its end is sound, whatever becomes of this request


def _wanted(body: bytes) -> tuple[str, str | None]:
    """The version to activate, and the digest of its manifest where the caller knows it."""
    try:
        wanted = json.loads(body)
        version, digest = wanted["version"], wanted.get("manifest_sha256")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInput('the body must be {"version": "<version id>"}') from error
    if digest is not None and not (isinstance(digest, str) and _DIGEST.fullmatch(digest)):
        raise InvalidInput("manifest_sha256 must be a sha256 in 64 hex digits; leave it out")
    return str(version), digest


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


def _require_key(scope: Scope, key: str) -> None:
    headers = dict(scope["headers"])
    given = headers.get(b"authorization", b"")
    if not hmac.compare_digest(given, f"Bearer {key}".encode()):
        raise Unauthorized("send this service's key as `Authorization: Bearer <key>`")


async def _read_body(receive: Receive) -> bytes:
    chunks, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise UpstreamUnavailable("the client went away")
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > MAX_BODY_BYTES:
            raise TooLarge(f"the body exceeds {MAX_BODY_BYTES} bytes; send a shorter prompt")
        more = message.get("more_body", False)
    return b"".join(chunks)


def _with_length(scope: Scope, body: bytes) -> Scope:
    headers = [(k, v) for k, v in scope["headers"] if k not in (b"content-length",)]
    return {**scope, "headers": [*headers, (b"content-length", str(len(body)).encode())]}


def _replay(body: bytes, receive: Receive) -> Receive:
    """Hand out the body that was read, then what comes after it (a disconnect)."""
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _answer(send: Send, status: int, body: dict[str, Any]) -> None:
    payload = json.dumps(body).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(payload)).encode()),
    ]
    if status == 503:
        headers.append((b"retry-after", b"2"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": payload})
