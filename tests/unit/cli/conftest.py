"""A home whose API answers as it is told."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from rewardloop.embedded.home import Addresses, Home

Answers = dict[tuple[str, str], Any]
Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]


class ScriptedApi:
    """Answers (method, path) with what it is told; a list is answered in turn."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.requests: list[tuple[str, str, Any]] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else dict(request.query)
        self.requests.append((request.method, request.path, body))
        answer = self.answers[request.method, request.path]
        if isinstance(answer, list):
            answer = answer.pop(0)
        return web.json_response(answer)


@pytest.fixture
async def stack(tmp_path: Path, serve: Serve) -> Callable[[Answers], Awaitable[Any]]:
    """Makes (home, api) with an API that knows these answers."""

    async def make(answers: Answers) -> tuple[Home, ScriptedApi]:
        api = ScriptedApi(answers)
        url = await serve(api)
        home = Home(tmp_path / "home")
        home.create()
        home.remember(Addresses(url, url, url, "postgresql://x", "redis://x"))
        return home, api

    return make
