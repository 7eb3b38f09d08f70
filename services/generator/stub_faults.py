"""What goes wrong in the stub engine, and a record of what it was asked.

The record is for suites that count repeated calls: one JSON line for each call when it begins,
and one when it ends, appended at once, so that it outlives the engine. Which call meets which
fault follows from a seed and the call's number, and is drawn when it begins.
"""

import hashlib
import json
import os
import re
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from services.generator.stub_verdict import asked_by_prompt

NEVER_SECONDS = 86_400.0
POISON = re.compile(r"\[poison (?P<judge>judge )?(?P<kind>\w+)\]")
POISONED_VERDICT = "Score"
"""The verdict whose askers suffer the poison of a prompt that names the judge."""
PAGE = "<html><body><h1>We will be back soon</h1></body></html>"


class Refused(Exception):
    """A request that is answered with an error, in vLLM's form."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        error = {"message": message, "type": kind, "param": None, "code": status}
        self.response = JSONResponse({"error": error}, status)


class Fate(StrEnum):
    """What becomes of one call."""

    ANSWER = "answer"
    ERROR = "error"
    """Status 500."""
    HANG = "hang"
    """No answer, ever."""
    CUT = "cut"
    """The connection ends in the middle of the body."""


@dataclass(frozen=True)
class Faults:
    """What goes wrong. By default nothing does.

    Rates and counts are over requests that ask for text, not over canaries.
    """

    latency_seconds: float = 0.0
    """Time that each request takes."""
    latency_spread_seconds: float = 0.0
    """Up to so much longer, by the number of the request."""
    max_running: int = 1_000_000
    """Requests that run at once; the others wait for one to end."""
    die_after: int | None = None
    """Answer so many requests; the next one ends the process."""
    reload_seconds: float = 0.0
    """Time that a reload of weights takes."""
    stale_after_reload: bool = False
    """A reload succeeds and changes nothing (vllm issue 32718)."""
    logprob_error: float = 0.0
    """Nats by which log-probabilities are off once weights were reloaded."""
    error_rate: float = 0.0
    """Share of requests answered with status 500; which ones follows from seed and number."""
    hang_rate: float = 0.0
    """Share of requests that are never answered."""
    cut_rate: float = 0.0
    """Share of requests whose connection ends in the middle of the answer."""
    seed: str = ""
    unscored_rate: float = 0.0
    """Share of judgements and comparisons in free mode that end without their last line, and by
    expectation of those in whose place a verdict is improbable."""
    fixed_score: int | None = None
    """Every judgement gives this score, so that all responses are tied."""
    writes_nul: bool = False
    """Every text holds a NUL, which Postgres does not store."""
    tells_no_logprobs: bool = False
    """It answers without log-probabilities, as many servers do."""
    repeats_itself: bool = False
    """Whatever is asked, the words are the same."""

    heeds_poison: bool = False
    """A prompt that holds `[poison KIND]` meets that fault each time; one that holds
    `[poison judge KIND]` when what it asks for is a judgement. The kinds: a status of 500 and
    above, `hang`, `cut` (half of the JSON, of a body that ends properly), `html` (a page with
    status 200), `empty` (no choices), `few` (one choice too few)."""

    def fate(self, number: int) -> Fate:
        """What becomes of request `number`."""
        left = Random(f"{self.seed}error {number}").random()
        rates = {Fate.ERROR: self.error_rate, Fate.HANG: self.hang_rate, Fate.CUT: self.cut_rate}
        for fate, rate in rates.items():
            if left < rate:
                return fate
            left -= rate
        return Fate.ANSWER

    def seconds(self, number: int, fate: Fate) -> float:
        """How long request `number` takes."""
        if fate is Fate.HANG:
            return NEVER_SECONDS
        longer = Random(f"{self.seed}latency {number}").random()
        return self.latency_seconds + longer * self.latency_spread_seconds


class CallLog:
    """Appends to `path`; without one nothing is written."""

    def __init__(self, path: Path | None = None) -> None:
        flags = os.O_APPEND | os.O_CREAT | os.O_WRONLY
        self._file = None if path is None else os.open(path, flags, 0o600)

    def begun(self, number: int, asked: str, fate: Fate) -> None:
        work = hashlib.sha256(asked.encode()).hexdigest()[:16]
        self._write({"call": number, "work": work, "fate": fate})

    def ended(self, number: int, *, answered: bool) -> None:
        self._write({"call": number, "answered": answered})

    def _write(self, line: dict[str, object]) -> None:
        if self._file is not None:
            line = {"at": time.time(), "engine": os.getpid(), **line}
            os.write(self._file, json.dumps(line).encode() + b"\n")


class CutResponse(JSONResponse):
    """Announces its whole length, and sends half of it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_half(message: Message) -> None:
            if body := message.get("body"):
                message = {**message, "body": body[: len(body) // 2]}
            await send(message)

        await super().__call__(scope, receive, send_half)


def poison_of(prompt: str) -> str | None:
    """The kind of the fault that the prompt names, if it befalls this one."""
    found = POISON.search(prompt)
    if found is None or (found["judge"] and not _asks_the_judge(prompt)):
        return None
    return found["kind"]


def _asks_the_judge(prompt: str) -> bool:
    asked = asked_by_prompt(prompt)
    return asked is not None and asked.name == POISONED_VERDICT


def poisoned(body: dict[str, Any], poison: str | None) -> Response:
    """The answer, as odd as the poison makes it."""
    if poison == "html":
        return Response(PAGE, media_type="text/html")
    if poison == "cut":
        whole = json.dumps(body)
        return Response(whole[: len(whole) // 2], media_type="application/json")
    if poison in ("empty", "few"):
        body["choices"] = body["choices"][1:] if poison == "few" else []
    return JSONResponse(body)
