"""Every metric name and the log format, so that dashboards and code cannot drift apart.

Each process registers these in prometheus_client's default registry and serves
them at `/metrics`. Counters count what *this process* did; the API's
`rewardloop_stored_*` gauges say what is in Postgres.
"""

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

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

STORED_NAMES = {
    "samples": "rewardloop_stored_samples",
    "judgements": "rewardloop_stored_judgements",
    "tokens": "rewardloop_stored_tokens",
    "pairs": "rewardloop_stored_pairs",
    "dead_prompts": "rewardloop_stored_dead_prompts",
    "phase_seconds": "rewardloop_stored_phase_seconds",
}
"""Gauges of the API over the whole database; `phase_seconds` is labelled by phase."""


@contextmanager
def phase_timer(phase: str) -> Iterator[None]:
    """Observe the time of a `with` block as `phase`."""
    started = time.monotonic()
    try:
        yield
    finally:
        PHASE_SECONDS.labels(phase).observe(time.monotonic() - started)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


def log_json() -> None:
    """Send this process's log to stderr, one JSON object a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
