"""Reads a request's body within bounds: so many bytes, so many seconds, so many levels of JSON.

Invariants: a body whose `Content-Length` is over the bound is refused before a byte of it is
read, any other at the first chunk past the bound, so no more than the bound is ever held. A
body that makes no progress, or takes too long as a whole, is given up. Knows no keys and no
routes.
"""

import asyncio
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from starlette.types import Message, Receive, Scope

from rewardloop.config.files import KeyGivenTwice, parse_json
from rewardloop.errors import (
    BodyTooSlow,
    InvalidInput,
    TooLarge,
    UnsupportedMedia,
    UpstreamUnavailable,
)

MAX_JSON_DEPTH = 100
DRAINED_BYTES = 16 * 2**20
DRAINED_SECONDS = 2.0
"""A client that is refused while it sends can read the answer for so long: if the connection
closed at once, its system would throw the answer away."""

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_BRACKETS = bytes(code for code in range(256) if code not in _STEP)


@dataclass(frozen=True)
class BodyRule:
    """What the body of a route may be."""

    max_bytes: int
    total_seconds: float = 60.0
    idle_seconds: float = 10.0
    """Without a byte."""
    is_json: bool = True
    """Else it is handed to the route chunk by chunk, and the route reads it as it likes."""
    mend: str = "send less at a time"
    """What a client can do whose body is too large."""


class Body:
    """One request's body; `receive` takes the place of the server's own."""

    def __init__(self, scope: Scope, receive: Receive, rule: BodyRule) -> None:
        self._receive = receive
        self._rule = rule
        self._headers = dict(scope["headers"])
        self._size = 0
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + rule.total_seconds
        self._has_ended = False

    @property
    def is_whole(self) -> bool:
        """Whether nothing more is to come: the end was seen, or no body was ever announced."""
        length = self._headers.get(b"content-length", b"0").strip()
        is_announced = b"transfer-encoding" in self._headers or length.strip(b"0") != b""
        return self._has_ended or not is_announced

    def require_size(self) -> None:
        """
        Raises:
            TooLarge: the headers announce more than the rule allows.
        """
        length = self._headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._rule.max_bytes:
            raise self._too_large()

    def require_json_type(self) -> None:
        """
        Raises:
            UnsupportedMedia: the headers announce something else than JSON.
        """
        kind = self._headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        is_json = kind == b"application/json" or kind.endswith(b"+json")
        if not is_json:
            raise UnsupportedMedia(
                "this route reads JSON; send the header `content-type: application/json`"
            )

    async def receive(self) -> Message:
        """The next chunk.

        Raises:
            TooLarge, BodyTooSlow: the body breaks the rule.
        """
        if self._has_ended:
            return await self._receive()
        left = self._deadline - self._loop.time()
        try:
            message = await asyncio.wait_for(self._receive(), min(self._rule.idle_seconds, left))
        except TimeoutError as error:
            raise BodyTooSlow(
                f"the body did not come to its end: it may pause for {self._rule.idle_seconds:g} s "
                f"and take {self._rule.total_seconds:g} s in all; send it again"
            ) from error
        if message["type"] == "http.request":
            self._size += len(message.get("body", b""))
            self._has_ended = not message.get("more_body", False)
            if self._size > self._rule.max_bytes:
                raise self._too_large()
        return message

    async def read(self) -> bytes:
        """The whole of it.

        Raises:
            TooLarge, BodyTooSlow: the body breaks the rule.
            UpstreamUnavailable: the client went away.
        """
        found = bytearray()
        while not self._has_ended:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise UpstreamUnavailable("the client went away")
            found += message.get("body", b"")
        return bytes(found)

    async def drain(self) -> None:
        """Throw away what still comes of a refused body, for a moment."""
        self._size = 0
        self._rule = BodyRule(DRAINED_BYTES, DRAINED_SECONDS, DRAINED_SECONDS)
        self._deadline = self._loop.time() + DRAINED_SECONDS
        try:
            while not self.is_whole:
                if (await self.receive())["type"] == "http.disconnect":
                    return
        except (TooLarge, BodyTooSlow):
            return

    def _too_large(self) -> TooLarge:
        most = self._rule.max_bytes
        told = f"{most // 2**20} MiB" if most >= 2**20 else f"{most} bytes"
        return TooLarge(f"the body has more than {told}; {self._rule.mend}")


def replay(body: bytes, receive: Receive) -> Receive:
    """Hand out the body that was read, then what comes after it (a disconnect)."""
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def require_sound_json(body: bytes) -> None:
    """
    Raises:
        InvalidInput: the body is no JSON, is nested too deeply, holds a number that JSON has
            not, or an object in it has a name twice (of which Python would take the last).
    """
    try:
        if _depth(body) > MAX_JSON_DEPTH:
            raise InvalidInput(f"body: nested deeper than {MAX_JSON_DEPTH} levels; send it flatter")
        parse_json(body.decode("utf-8-sig"), parse_constant=_finite, parse_float=_finite)
    except KeyGivenTwice as error:
        raise InvalidInput(f"body: {error}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput("body: not UTF-8, as JSON must be") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise InvalidInput(f"body: not JSON: {error}") from error
    except ValueError as error:  # a whole number of thousands of digits
        raise InvalidInput(f"body: {error}") from error


def _finite(number: str) -> float:
    """What the parser hands over: a number, or one of its own words NaN and Infinity."""
    if not math.isfinite(float(number)):
        raise ValueError(f"{number[:40]} is no number that fits; send null or a finite one")
    return float(number)


def _depth(body: bytes) -> int:
    """Levels of lists and objects; strings, and what they hold, do not count."""
    if body.count(b"[") + body.count(b"{") <= MAX_JSON_DEPTH:
        return 0  # too few to be too deep
    return max(accumulate(_steps(body), initial=0))


def _steps(body: bytes) -> Iterator[int]:
    brackets = _STRING.sub(b"", body).translate(None, _NO_BRACKETS)
    return map(_STEP.__getitem__, brackets)
