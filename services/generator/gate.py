"""The ASGI middleware in front of vLLM's routes.

Owns who may call what, which weights answer, and how weights change. Invariants:

- only the routes in `OPEN`, `PUBLIC` and `ADMIN` exist; each but `OPEN` needs its key, and
  `services.front` looks at it, and at the body's size and time, before anything else;
- only the fields of a request that `fields` lists reach vLLM, within their bounds;
- one completion is made by one version of the weights, and says which;
- a conversation's text never becomes control tokens (see `encoding`);
- requests never meet weights that were not verified: from the moment a swap
  begins until its canaries agree, new requests wait here.

It reaches the engine by `scope["app"].state.engine_client`, so vLLM's
development routes stay off.
"""

import json
import os
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from rewardloop import telemetry
from rewardloop.config import load_settings
from rewardloop.errors import (
    InvalidInput,
    MethodNotAllowed,
    NotFound,
    PromptTooLong,
    RewardloopError,
    Unauthorized,
)
from services.front import ALL_SCOPES, Caller, ErrorForm, Front, Limits, has_key, require_key
from services.generator.admission import Admission
from services.generator.encoding import CHAT, encoded, ending_at
from services.generator.sanitize import sanitize
from services.generator.stamp import Stamp
from services.generator.swap import Swapper
from services.named import work_of_request
from services.request_body import BodyRule, replay
from services.slow_headers import close_slow_ones

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
OPEN_PATHS, PUBLIC_PATHS, ADMIN_PATHS = (
    frozenset(path for _, path in routes) for routes in (OPEN, PUBLIC, ADMIN)
)
BODY = BodyRule(8 * 2**20, mend="send a shorter prompt")


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

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What stands behind the front."""
        route = (scope["method"], scope["path"])
        try:
            if route in OPEN:
                self._swapper.require_sound()
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
        async with self._admission.request():
            self._swapper.require_sound()
            version = await self._swapper.announce(scope["app"].state.engine_client)
            body = ending_at(body, self._swapper.extra_stop_ids)
            stamp = Stamp(send, version, dropped)
            await self._app(_with_length(scope, body), replay(body, receive), stamp)
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
            version = json.loads(await _body(receive))["version"]
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInput('the body must be {"version": "<version id>"}') from error
        return await self._swapper.activate(scope["app"], str(version))


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
