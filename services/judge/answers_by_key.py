"""Gives a request that names a key the judgements that were written for that key before.

The engine is asked under a key of its own, made of the same one: where that is a generator of
ours, it keeps what it began although this service dies. A judge does not know which weights its
engine will have next, so whoever names a key names the judging version in it.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import BaseModel, Field

from rewardloop.clients.server import AGAIN_HEADER, ANEW_HEADER, KEY_HEADER, request_key
from rewardloop.kept_answers import MAX_KEY_CHARS, KeptAnswers
from services.judge.schemas import JudgeRequest

Answer = dict[str, Any]
Make = Callable[[dict[str, str]], Awaitable[Answer]]


class RequestKey(BaseModel):
    """The headers by which a request may be sent again without a second call."""

    x_request_key: str | None = Field(default=None, min_length=1, max_length=MAX_KEY_CHARS)
    """Whoever asks again under the same key within some minutes is given the same answer."""
    x_request_anew: str | None = None
    """Not empty: do not wait for an answer that is already being written."""


class AnswersByKey:
    def __init__(self) -> None:
        self._kept: KeptAnswers[Answer] = KeptAnswers(lambda answer: len(json.dumps(answer)))

    async def get(
        self, headers: RequestKey, request: JudgeRequest, body: dict[str, Any], make: Make
    ) -> tuple[Answer, dict[str, str]]:
        """The answer, and the headers that say whether it was given before. `body` is what the
        engine will be asked."""
        key = headers.x_request_key
        if key is None:
            return await make({}), {}
        anew = bool(headers.x_request_anew)
        asked_with = {KEY_HEADER: request_key("engine of the judge", key, body)}
        if anew:
            asked_with[ANEW_HEADER] = "1"
        was_made = False

        async def made() -> Answer:
            nonlocal was_made
            was_made = True
            return await make(asked_with)

        question = request.model_dump_json().encode()
        kind = f"{request.max_tokens} {request.n}"
        answer = await self._kept.get(key, question, made, kind=kind, anew=anew)
        return answer, {} if was_made else {AGAIN_HEADER: "1"}
