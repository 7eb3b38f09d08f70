"""The one layer in front of every service: the API, the judge, and the generator's gate.

In this order, and each before the next: the key, the key's share of requests, the size of the
body, its time, its JSON. Invariants:

- without the right key no byte of a body is read, but for what is thrown away so that the
  client can read its refusal;
- no more of a body is held than its route's rule allows;
- a connection on which a body was not read to its end is closed with the answer;
- an answer that this layer gives has the form of the service's other errors.

Knows the routes only as far as `rule_for` and `authenticate` do.
"""

import asyncio
import hmac
import json
import re
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rewardloop.errors import MethodNotAllowed, RewardloopError, TooManyRequests, Unauthorized
from services.request_body import Body, BodyRule, replay, require_sound_json

ALL_SCOPES = frozenset({"read", "run", "export", "admin"})
MANY_BYTES = 2**20
"""More JSON is looked at beside the event loop."""
WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})


@dataclass(frozen=True)
class Caller:
    """Whose key it is, and what that key opens."""

    name: str
    scopes: frozenset[str]


Authenticate = Callable[[Scope], Awaitable[Caller]]
"""Raises Unauthorized or Forbidden. It may look at the headers and the path, and no further."""


@dataclass(frozen=True)
class Limits:
    in_flight: int
    """Requests of one key at a time."""
    per_second: float
    """Requests of one key in a second; so many may come at once after a pause."""
    body: BodyRule
    by_path: Mapping[re.Pattern[str], BodyRule] = field(default_factory=dict)
    """Routes whose bodies have rules of their own."""

    def rule_for(self, path: str) -> BodyRule:
        found = (rule for pattern, rule in self.by_path.items() if pattern.fullmatch(path))
        return next(found, self.body)


@dataclass(frozen=True)
class ErrorForm:
    """How a service words its errors."""

    body_of: Callable[[RewardloopError], dict[str, Any]]
    media_type: str = "application/problem+json"


class Front:
    """An ASGI middleware."""

    def __init__(
        self,
        app: ASGIApp,
        authenticate: Authenticate,
        limits: Limits,
        form: ErrorForm,
        open_paths: frozenset[str] = frozenset(),
    ) -> None:
        """`open_paths` want no key and no body."""
        self._app = app
        self._authenticate = authenticate
        self._limits = limits
        self._shares: defaultdict[str, _Share] = defaultdict(lambda: _Share(limits))
        self._form = form
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # no service has any
        else:
            await self._request(scope, receive, send)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = Body(scope, receive, self._limits.rule_for(scope["path"]))
        closing = _Closing(send, body)
        try:
            if scope["path"] in self._open_paths:
                await self._app(scope, body.receive, closing)
                return
            caller = await self._authenticate(scope)
            scope["caller"] = caller
            with self._shares[caller.name].taken():
                await self._app(scope, await self._checked(scope, body), closing)
        except RewardloopError as error:
            if closing.has_begun:
                raise
            await answer_error(closing, error, self._form)
        finally:
            await closing.finish()

    async def _checked(self, scope: Scope, body: Body) -> Receive:
        body.require_size()
        rule = self._limits.rule_for(scope["path"])
        if scope["method"] not in WITH_BODY or not rule.is_json:
            return body.receive
        if not body.is_whole:
            body.require_json_type()
        read = await body.read()
        if not read:
            return replay(read, body.receive)
        if len(read) > MANY_BYTES:
            await asyncio.to_thread(require_sound_json, read)
        else:
            require_sound_json(read)
        return replay(read, body.receive)


class _Share:
    """What one key uses of what it may: a token bucket, and a count of requests in flight."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._in_flight = 0
        self._left = max(limits.per_second, 1.0)
        self._counted_at = time.monotonic()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """
        Raises:
            TooManyRequests: nothing is left.
        """
        self._refill()
        if self._in_flight >= self._limits.in_flight:
            raise TooManyRequests(
                f"this key has {self._in_flight} requests in flight, which is the most that it "
                "may; wait for some (REWARDLOOP_MAX_REQUESTS_IN_FLIGHT)"
            )
        if self._left < 1:
            raise TooManyRequests(
                f"this key sends more than {self._limits.per_second:g} requests in a second; "
                "send fewer (REWARDLOOP_MAX_REQUESTS_PER_SECOND)"
            )
        self._left -= 1
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    def _refill(self) -> None:
        now = time.monotonic()
        gained = (now - self._counted_at) * self._limits.per_second
        self._left = min(self._left + gained, max(self._limits.per_second, 1.0))
        self._counted_at = now


class _Closing:
    """An ASGI `send` that closes the connection where the request's body was not read whole."""

    def __init__(self, send: Send, body: Body) -> None:
        self._send = send
        self._body = body
        self._cut = False
        self.has_begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            self._cut = not self._body.is_whole
            if self._cut:
                headers = [*message["headers"], (b"connection", b"close")]
                message = {**message, "headers": headers}
        elif self._cut and not message.get("more_body", False):
            message = {**message, "more_body": True}  # `finish` ends it
        await self._send(message)

    async def finish(self) -> None:
        if self._cut:
            await self._body.drain()
            await self._send({"type": "http.response.body", "body": b""})


async def answer_error(send: Send, error: RewardloopError, form: ErrorForm) -> None:
    payload = json.dumps(form.body_of(error)).encode()
    headers = {
        "content-type": form.media_type,
        "content-length": str(len(payload)),
        **error_headers(error),
    }
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": encoded})
    await send({"type": "http.response.body", "body": payload})


def error_headers(error: RewardloopError) -> dict[str, str]:
    """What an error says in headers, besides its body."""
    headers = {"retry-after": "2"} if error.transient else {}
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = ", ".join(error.context["allowed"])
    return headers


def one_key(key: str, name: str = "api") -> Authenticate:
    """The settings' key, which opens everything that its service has."""

    async def authenticate(scope: Scope) -> Caller:
        require_key(scope, key)
        return Caller(name, ALL_SCOPES)

    return authenticate


def require_key(scope: Scope, key: str) -> None:
    """
    Raises:
        Unauthorized: the request carries another key, or none.
    """
    if not has_key(scope, key):
        raise Unauthorized("send this service's key as `Authorization: Bearer <key>`")


def has_key(scope: Scope, key: str) -> bool:
    given = dict(scope["headers"]).get(b"authorization", b"")
    return hmac.compare_digest(given, f"Bearer {key}".encode())
