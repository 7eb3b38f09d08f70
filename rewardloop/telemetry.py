"""Every metric name and the log format, so that dashboards and code cannot drift apart.

Each process registers these in prometheus_client's default registry and serves
them at `/metrics`. Counters count what *this process* did; the API's
`rewardloop_stored_*` gauges say what is in Postgres.

A log line is one JSON object. One that is written inside `work_fields` names the work that it
is about (iteration, run, version); the names go along to other services in the header `baggage`
(W3C) and to child processes in an environment variable. No line holds a secret: see `redaction`.
"""

import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType, TracebackType
from typing import Any
from urllib.parse import quote, unquote

from prometheus_client import Counter, Gauge, Histogram

from rewardloop.redaction import redacted

SAMPLES = Counter("rewardloop_samples", "Responses sampled.")
JUDGEMENTS = Counter("rewardloop_judgements", "Judgements settled.", ["outcome"])
"""`outcome` is `scored` or the reason why there is no score."""
TOKENS = Counter("rewardloop_tokens", "Tokens that engines read or wrote for us.", ["role", "kind"])
"""`role`: sample, judge, or engine (a generator cannot tell who asks); `kind`: prompt or
completion."""
CANDIDATE_PROMPTS = Counter(
    "rewardloop_candidate_prompts", "Prompts that the prompt model wrote.", ["outcome"]
)
"""`outcome` is `accepted` or the reason of the rejection."""
FAILED_ATTEMPTS = Counter(
    "rewardloop_failed_attempts",
    "Attempts at a prompt or another item that failed.",
    ["at", "kind"],
)
"""`at`: rollout, ranked_response, answer, comparison, candidate; `kind`: the error's, as in
problem details."""
PHASE_SECONDS = Histogram(
    "rewardloop_phase_seconds",
    "Time that an iteration spent in a phase.",
    ["phase"],
    buckets=(1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000),
)
TRAIN_STEPS = Counter("rewardloop_train_steps", "Optimizer steps taken.")
SWAPS = Counter("rewardloop_swaps", "Weight swaps on this replica.", ["outcome"])
SWAP_SECONDS = Histogram(
    "rewardloop_swap_seconds",
    "Time of a swap, from the last request out to new weights verified.",
    buckets=(1, 3, 10, 30, 100),
)
REQUESTS = Counter("rewardloop_generator_requests", "Requests answered.", ["path", "status"])
REQUESTS_IN_FLIGHT = Gauge("rewardloop_requests_in_flight", "Requests inside this replica.")
REQUESTS_ENDED = Counter(
    "rewardloop_requests_ended", "Requests that a swap ended because they took too long."
)
KEPT_ANSWERS = Gauge("rewardloop_kept_answers", "Answers kept for whoever asks again.")
KEPT_ANSWER_BYTES = Gauge("rewardloop_kept_answer_bytes", "Bytes that the kept answers take.")
KEPT_ANSWERS_DROPPED = Counter(
    "rewardloop_kept_answers_dropped", "Kept answers that were let go.", ["reason"]
)
"""`reason`: age, room (the bounds are reached) or version (another one is served)."""
ANSWERS_GIVEN_AGAIN = Counter(
    "rewardloop_answers_given_again", "Requests that needed no call of their own.", ["how"]
)
"""`how`: kept (the answer was there) or joined (it was being made)."""
OVERDUE_CALLS = Counter(
    "rewardloop_overdue_calls", "Calls that were given up and asked for again.", ["server"]
)
CALLS_ALLOWED = Gauge(
    "rewardloop_calls_allowed", "Calls that may be in flight to a server at once.", ["server"]
)
TOP_P_SORTS_ALL = Gauge(
    "rewardloop_top_p_sorts_all",
    "1 where this CPU engine sorts the whole vocabulary for every token of a top-p request.",
)
BREAKERS_OPENED = Counter(
    "rewardloop_breakers_opened", "Times that a server was no longer trusted.", ["server"]
)

STORED_NAMES = {
    "samples": "rewardloop_stored_samples",
    "judgements": "rewardloop_stored_judgements",
    "tokens": "rewardloop_stored_tokens",
    "pairs": "rewardloop_stored_pairs",
    "dead_prompts": "rewardloop_stored_dead_prompts",
    "phase_seconds": "rewardloop_stored_phase_seconds",
    "iterations": "rewardloop_stored_iterations",
}
"""Gauges of the API over the whole database; `phase_seconds` is labelled by phase, `iterations`
by state."""


@contextmanager
def phase_timer(phase: str) -> Iterator[None]:
    """Observe the time of a `with` block as `phase`."""
    started = time.monotonic()
    try:
        yield
    finally:
        PHASE_SECONDS.labels(phase).observe(time.monotonic() - started)


WORK_NAMES = ("iteration", "run", "version", "evaluation")
"""What a log line may say of the work that it belongs to."""
WORK_HEADER = "baggage"
WORK_VARIABLE = "REWARDLOOP_WORK"
"""Environment variable by which a child process learns its parent's work fields."""
_WORK_VALUE = re.compile(r"[\w.:-]{1,200}", re.ASCII)
_work: ContextVar[Mapping[str, str]] = ContextVar("work", default=MappingProxyType({}))


@contextmanager
def work_fields(**fields: object) -> Iterator[None]:
    """Every line that is logged in the `with` block carries these ids; None is left out."""
    token = _work.set({**_work.get(), **_texts(fields)})
    try:
        yield
    finally:
        _work.reset(token)


def add_work(**fields: object) -> None:
    """As `work_fields`, to the end of the current asyncio task or of the block around it."""
    _work.set({**_work.get(), **_texts(fields)})


def name_work(fields: Mapping[str, str]) -> None:
    """Lines carry these, and no other ids, to the end of the current asyncio task."""
    _work.set(dict(fields))


def _texts(fields: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in fields.items() if value is not None}


def current_work() -> dict[str, str]:
    return dict(_work.get())


def work_header() -> str:
    """The current work fields as a `baggage` header (or `WORK_VARIABLE`) carries them."""
    return ",".join(f"{name}={quote(value, safe='')}" for name, value in _work.get().items())


def work_of(header: str) -> dict[str, str]:
    """The work fields in a header from elsewhere; what is not of their form is left out."""
    pairs = (item.partition(";")[0].partition("=") for item in header.split(",")[:64])
    found = {name.strip(): unquote(value.strip()) for name, _, value in pairs}
    return {
        name: value
        for name, value in found.items()
        if name in WORK_NAMES and _WORK_VALUE.fullmatch(value)
    }


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with the current work fields and without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_work.get(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = self.formatStack(record.stack_info)
        return json.dumps(_clean(fields), default=lambda value: redacted(str(value)))


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {redacted(str(key)): _clean(inner) for key, inner in value.items()}
    return [_clean(inner) for inner in value] if isinstance(value, list | tuple) else value


def log_json() -> None:
    """Send this process's log to stderr, one JSON object a line: warnings and the traceback that
    ends the process too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for chatty in ("httpx", "celery"):  # a line for every request, and two for every task
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    name_work(work_of(os.environ.get(WORK_VARIABLE, "")))


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    logging.getLogger("rewardloop").critical(
        "the process ends: %s", error, exc_info=(kind, error, trace)
    )
