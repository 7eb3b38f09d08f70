"""Writes the weight version on every completion, streamed or not, without parsing it.

A JSON object begins with `{` and a streamed chunk with `data: {`; the version is
put in behind that brace. Newlines are escaped inside JSON strings, so a blank
line followed by `data: {` can only be the start of a chunk.
"""

import json
import re
from typing import Any

from starlette.types import Message, Send

WEIGHT_VERSION_HEADER = b"x-rewardloop-weight-version"
DROPPED_HEADER = b"x-rewardloop-dropped"
_USAGE = re.compile(
    rb'"usage":\s*\{"prompt_tokens":\s*(\d+),\s*"total_tokens":\s*\d+,'
    rb'\s*"completion_tokens":\s*(\d+)'
)
_FINISHED = re.compile(rb'"finish_reason":\s*"')


class Stamp:
    """An ASGI `send` that stamps one response."""

    def __init__(self, send: Send, version: str, dropped: list[str]) -> None:
        self._send = send
        self._version = version
        self._dropped = dropped
        self._field = f'{{"weight_version": {json.dumps(version)}, '.encode()
        self._kind = b""
        self._began = False
        self.status = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.num_choices = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            message = self._start(message)
        elif message["type"] == "http.response.body" and message.get("body"):
            message = {**message, "body": self._body(message["body"])}
        await self._send(message)

    def _start(self, message: Message) -> Message:
        self.status = message["status"]
        headers: list[Any] = []
        for name, value in message["headers"]:
            if name.lower() == b"content-type":
                self._kind = value.partition(b";")[0] if self.status == 200 else b""
            headers.append((name.lower(), value))
        if self._kind == b"application/json":
            headers = [self._lengthened(*header) for header in headers]
        headers.append((WEIGHT_VERSION_HEADER, self._version.encode()))
        if self._dropped:
            headers.append((DROPPED_HEADER, ", ".join(self._dropped).encode()))
        return {**message, "headers": headers}

    def _lengthened(self, name: bytes, value: bytes) -> tuple[bytes, bytes]:
        if name != b"content-length":
            return name, value
        return name, str(int(value) + len(self._field) - 1).encode()

    def _body(self, body: bytes) -> bytes:
        if self._kind == b"application/json" and not self._began:
            self._began = True
            self._count(body)
            return self._field + body[1:]
        if self._kind == b"text/event-stream":
            self._count(body)
            framed = (b"\n\n" + body).replace(b"\n\ndata: {", b"\n\ndata: " + self._field)
            return framed[2:]
        return body

    def _count(self, body: bytes) -> None:
        self.num_choices += len(_FINISHED.findall(body))
        for prompt, completion in _USAGE.findall(body):
            self.prompt_tokens, self.completion_tokens = int(prompt), int(completion)
