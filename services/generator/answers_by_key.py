"""Gives a request that names a key the answer that was made for that key before.

Serves the gate: `KeptAnswers` over recorded ASGI messages. An answer is kept whole, with its
headers, and only if it came to its end and is a completion with all its choices: what nobody
can read is made again for whoever asks again. It is given again only while the version that
made it is served. A streamed answer is not kept, nor is one to a request without a key.
"""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from rewardloop.clients.completions import choices_of
from rewardloop.clients.server import AGAIN_HEADER, ANEW_HEADER, KEY_HEADER
from rewardloop.errors import RewardloopError, UpstreamUnavailable
from rewardloop.kept_answers import KeptAnswers
from services.generator.stamp import WEIGHT_VERSION_HEADER

END_SECONDS = 2.0
"""So long may an engine take to stop work that nobody wants."""
Serve = Callable[[Receive, Send], Awaitable[None]]


@dataclass
class Recorded:
    """One answer, as the messages by which it was sent."""

    num_choices: int
    """How many were asked for."""
    messages: list[Message] = field(default_factory=list)

    async def send(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def is_good(self) -> bool:
        if self.messages[0]["status"] != 200:
            return False
        body = b"".join(message.get("body", b"") for message in self.messages)
        try:
            choices_of(json.loads(body), self.num_choices, "the engine")
        except (ValueError, RecursionError, RewardloopError):
            return False
        return True

    @property
    def version(self) -> str:
        headers: dict[bytes, bytes] = dict(self.messages[0]["headers"])
        return headers[WEIGHT_VERSION_HEADER].decode()

    @property
    def num_bytes(self) -> int:
        return sum(len(message.get("body", b"")) for message in self.messages)

    def require_whole(self) -> None:
        """
        Raises:
            UpstreamUnavailable: the engine stopped before the end of its answer.
        """
        ended = self.messages and not self.messages[-1].get("more_body", False)
        headers = dict(self.messages[0]["headers"]) if self.messages else {}
        length = int(headers.get(b"content-length", self.num_bytes))
        if not ended or self.num_bytes != length:
            raise UpstreamUnavailable("the engine's answer has no end; try again")


class AnswersByKey:
    def __init__(self) -> None:
        self._kept: KeptAnswers[Recorded] = KeptAnswers(
            lambda recorded: recorded.num_bytes if recorded.is_good else None
        )

    async def respond(
        self,
        scope: Scope,
        body: bytes,
        asked: dict[str, Any],
        receive: Receive,
        send: Send,
        *,
        version: Callable[[], str],
        serve: Serve,
    ) -> None:
        """Send what `serve` sends, or sent before; `asked` is the body, read, and `version` the one
        that is served now."""
        headers = dict(scope["headers"])
        key = headers.get(KEY_HEADER.encode())
        if key is None or asked.get("stream"):
            await serve(receive, send)
            return
        mine = Making(serve, _num_choices(asked))
        recorded = await _unless_gone(
            self._kept.get(
                _private(scope["path"], headers, key),
                body,
                mine.made,
                kind=_kind(scope["path"], asked),
                anew=bool(headers.get(ANEW_HEADER.encode())),
                still_holds=lambda found: found.version == version(),
            ),
            receive,
        )
        for message in recorded.messages if recorded else []:
            await send(message if mine.was_made else _said_to_be_given_again(message))


def _private(path: str, headers: dict[bytes, bytes], key: bytes) -> str:
    """Nobody is given an answer that was made under another API key."""
    caller = hashlib.sha256(headers.get(b"authorization", b"")).hexdigest()[:16]
    return f"{caller} {path} {key.decode('latin-1')}"


def _kind(path: str, asked: dict[str, Any]) -> str:
    """Requests that may write as much as each other."""
    fields = ("max_tokens", "max_completion_tokens", "n")
    return f"{path} {[asked.get(field) for field in fields]}"


def _num_choices(asked: dict[str, Any]) -> int:
    """n for each prompt; /v1/completions takes several prompts at once."""
    prompt = asked.get("prompt")
    num = int(asked.get("n") or 1)
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        return num * len(prompt)
    return num


class Making:
    """An answer that this request may cause. The engine is not told when its caller goes away,
    only when nobody wants the answer any more."""

    def __init__(self, serve: Serve, num_choices: int) -> None:
        self._serve = serve
        self._num_choices = num_choices
        self._unwanted = asyncio.Event()
        self.was_made = False

    async def made(self) -> Recorded:
        self.was_made = True
        recorded = Recorded(self._num_choices)
        serving = asyncio.ensure_future(self._serve(self._receive, recorded.send))
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            # A client that went away is how vLLM itself stops the work on a request.
            self._unwanted.set()
            await asyncio.wait({serving}, timeout=END_SECONDS)
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            raise
        recorded.require_whole()
        return recorded

    async def _receive(self) -> Message:
        await self._unwanted.wait()
        return {"type": "http.disconnect"}


def _said_to_be_given_again(message: Message) -> Message:
    if message["type"] != "http.response.start":
        return message
    return {**message, "headers": [*message["headers"], (AGAIN_HEADER.encode(), b"1")]}


async def _unless_gone(answer: Awaitable[Recorded], receive: Receive) -> Recorded | None:
    """The answer, or None when the caller went away before it was there."""
    waiting = asyncio.ensure_future(answer)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
        return await waiting if waiting.done() else None
    finally:
        for task in (waiting, gone):
            task.cancel()
        await asyncio.gather(waiting, gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    message: dict[str, Any] = {"type": ""}
    while message["type"] != "http.disconnect":
        message = dict(await receive())
