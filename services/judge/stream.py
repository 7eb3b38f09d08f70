"""Streamed judgements: the engine's chunks pass through, the verdict comes with the last one.

The engine may be anybody's, so nothing is taken for granted but JSON with choices in
server-sent events: a choice may lack its index, its delta or its finish reason, and the
stream its `[DONE]`. A choice without a finish reason is judged where the stream ends. An
error in mid-stream is passed on in the OpenAI form, as an event; one before the first
event is the answer's status.
"""

import json
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any

from rewardloop.clients.completions import index_of, written_text
from rewardloop.clients.judged import judge_version
from rewardloop.errors import RewardloopError, UpstreamMismatch, from_problem
from services.judge.event_stream import event_data

DONE = "data: [DONE]\n\n"
Reading = Callable[[str, str | None, str], dict[str, dict[str, Any]]]
"""Of a choice's text, finish reason and judge version: its judgement or its comparison."""


class JudgedStream:
    """One answer's stream; `events` is asked for once."""

    def __init__(self, engine: object, num_choices: int, reading: Reading) -> None:
        self._engine = engine
        self._num_choices = num_choices
        self._reading = reading
        self._texts: dict[int, list[str]] = {}
        self._judged: set[int] = set()
        self._last: dict[str, Any] = {}

    async def events(self, chunks: AsyncIterable[bytes]) -> AsyncIterator[str]:
        """
        Raises:
            RewardloopError: what the engine sent is no stream of choices, or an error.
        """
        ended = False
        async for data in event_data(chunks):
            if not data.strip():
                continue  # a sign of life
            if data.strip() == "[DONE]":
                ended = True
                break
            yield _event(self._judged_chunk(self._parsed(data)))
        if not self._last:
            raise UpstreamMismatch(f"the judging engine {self._engine} sent an empty stream")
        # A stream that merely stops may have been cut off: only a whole last line counts.
        for index in sorted(self._texts.keys() - self._judged):
            yield _event(self._closing_chunk(index, None if ended else "length"))
        if len(self._texts) < self._num_choices:
            raise UpstreamMismatch(
                f"the judging engine {self._engine} was asked for n={self._num_choices} choices "
                f"and streamed {len(self._texts)}; ask for one at a time"
            )
        yield DONE

    def _parsed(self, data: str) -> dict[str, Any]:
        try:
            chunk = json.loads(data)
        except ValueError:
            chunk = None
        if not isinstance(chunk, dict):
            raise UpstreamMismatch(
                f"the judging engine {self._engine} streams something else than completions: "
                f"{data[:80]!r}"
            )
        if error := chunk.get("error") or (chunk if chunk.get("object") == "error" else None):
            raise _error_of(error)
        return chunk

    def _judged_chunk(self, chunk: dict[str, Any]) -> dict[str, Any]:
        self._last = {**self._last, **{k: v for k, v in chunk.items() if v is not None}}
        choices = [c for c in chunk.get("choices") or [] if isinstance(c, dict)]
        for position, choice in enumerate(choices):
            self._read(choice, position)
        return {
            **chunk,
            "choices": choices,
            "model": "judge",
            "created": chunk.get("created") or int(time.time()),
        }

    def _read(self, choice: dict[str, Any], position: int) -> None:
        index = choice["index"] = index_of(choice, position)
        texts = self._texts.setdefault(index, [])
        if choice.get("message") and not choice.get("delta"):  # the whole, with some at the end
            whole = written_text(choice["message"].get("content"))
            texts[:] = [whole] if whole.startswith("".join(texts)) else [*texts, whole]
        else:
            part = choice.get("delta")
            texts.append(written_text(part.get("content") if part else choice.get("text")))
        if choice.get("finish_reason") and index not in self._judged:
            self._judged.add(index)
            choice |= self._read_verdict(index, choice["finish_reason"])

    def _read_verdict(self, index: int, finish_reason: str | None) -> dict[str, dict[str, Any]]:
        return self._reading("".join(self._texts[index]), finish_reason, judge_version(self._last))

    def _closing_chunk(self, index: int, finish_reason: str | None) -> dict[str, Any]:
        choice = {"index": index, "delta": {}, "finish_reason": None}
        about = {key: value for key, value in self._last.items() if key not in ("choices", "usage")}
        return {
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            **about,
            "model": "judge",
            "choices": [choice | self._read_verdict(index, finish_reason)],
        }


async def errors_told(first: str, rest: AsyncIterator[str]) -> AsyncIterator[str]:
    """The events, and an error of ours as the last one: the headers are sent already."""
    yield first
    try:
        async for event in rest:
            yield event
    except RewardloopError as error:
        yield _event(error.openai())
        yield DONE


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body)}\n\n"


def _error_of(error: Any) -> RewardloopError:
    found = error if isinstance(error, dict) else {"message": error}
    code = found.get("code")
    status = code if isinstance(code, int) and 400 <= code < 600 else 502
    return from_problem({"detail": str(found.get("message") or found)}, status)
