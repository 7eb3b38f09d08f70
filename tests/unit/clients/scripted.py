"""A server that gives scripted answers, and requests and answers as tests write them."""

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from rewardloop import errors
from rewardloop.records import Message

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
KEY = "a-key-of-16-chars"
HI: Message = {"role": "user", "content": "Hi"}


class Script:
    """Gives the scripted answers in order, the last one for ever, and remembers the requests."""

    def __init__(self, *answers: tuple[int, Any]) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, str, Any]] = []

    async def __call__(self, request: web.Request) -> web.Response:
        assert request.headers["authorization"] == f"Bearer {KEY}"
        body = await request.json() if request.can_read_body else dict(request.query)
        self.requests.append((request.method, request.path, body))
        status, answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, bytes):
            return web.Response(status=status, body=answer)
        return web.json_response(answer, status=status)


BUSY = (503, errors.UpstreamUnavailable("loading").problem())


def completion(*texts: str, tokens: int = 10) -> dict[str, Any]:
    choices = [
        {"index": i, "message": {"content": text}, "finish_reason": "stop"}
        for i, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": 7, "completion_tokens": tokens}
    return {"choices": choices[::-1], "usage": usage, "weight_version": "m1"}
