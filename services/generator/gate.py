"""The ASGI middleware in front of vLLM's routes.

Owns who may call what, which weights answer, and how weights change. Invariants:

- only the routes in `OPEN`, `PUBLIC` and `ADMIN` exist; each but `OPEN` needs its key;
- one completion is made by one version of the weights, and says which;
- a conversation's text never becomes control tokens (see `encoding`);
- requests never meet weights that were not verified: from the moment a swap
  begins until its canaries agree, new requests wait here.

It reaches the engine by `scope["app"].state.engine_client`, so vLLM's
development routes stay off.
"""

import hmac
import json
import os
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rewardloop import telemetry
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
from services.generator.admission import Admission
from services.generator.encoding import encoded, ending_at
from services.generator.sanitize import sanitize
from services.generator.stamp import Stamp
from services.generator.swap import Swapper
from services.named import work_of_request

INITIAL_VERSION = "REWARDLOOP_INITIAL_VERSION"
"""Environment variable by which the launcher says which version vLLM loads."""

OPEN = {("GET", "/health")}
PUBLIC = {
    ("GET", "/metrics"),
    ("GET", "/v1/models"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
}
ADMIN = {("GET", "/admin/weights"), ("POST", "/admin/activate")}
MAX_BODY_BYTES = 8 * 2**20


class Gate:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._settings = load_settings("generator")
        self._admission = Admission()
        self._swapper = Swapper(
            app,
            self._admission,
            self._settings.checkpoint_root,
            os.environ[INITIAL_VERSION],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # vLLM's websocket routes are not on the list
        telemetry.name_work(work_of_request(scope))
        try:
            await self._route(scope, receive, send)
        except PromptTooLong as error:
            await _answer(send, 400, _as_vllm_tells_it(error))
        except RewardloopError as error:
            await _answer(send, error.status, error.openai())

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = (scope["method"], scope["path"])
        if route in OPEN:
            self._swapper.require_sound()
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
        async with self._admission.request():
            self._swapper.require_sound()
            version = await self._swapper.announce(scope["app"].state.engine_client)
            body = ending_at(body, self._swapper.extra_stop_ids)
            stamp = Stamp(send, version, dropped)
            await self._app(_with_length(scope, body), _replay(body, receive), stamp)
        telemetry.REQUESTS.labels(scope["path"], str(stamp.status)).inc()
        telemetry.TOKENS.labels("engine", "completion").inc(stamp.completion_tokens)
        telemetry.TOKENS.labels("engine", "prompt").inc(stamp.prompt_tokens)
        telemetry.SAMPLES.inc(stamp.num_choices)

    async def _admin(
        self, route: tuple[str, str], scope: Scope, receive: Receive
    ) -> dict[str, Any]:
        if route == ("GET", "/admin/weights"):
            return await self._swapper.weights(scope["app"])
        try:
            version = json.loads(await _read_body(receive))["version"]
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInput('the body must be {"version": "<version id>"}') from error
        return await self._swapper.activate(scope["app"], str(version))


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
