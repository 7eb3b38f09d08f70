"""Gauges over what Postgres holds, refreshed when Prometheus asks."""

from prometheus_client import Gauge

from rewardloop.records import IterationState
from rewardloop.store import Store
from rewardloop.store.totals import totals
from rewardloop.telemetry import STORED_NAMES

_SAMPLES = Gauge(STORED_NAMES["samples"], "Responses stored.")
_JUDGEMENTS = Gauge(STORED_NAMES["judgements"], "Judgements stored.")
_TOKENS = Gauge(STORED_NAMES["tokens"], "Completion tokens stored.")
_PAIRS = Gauge(STORED_NAMES["pairs"], "Preference pairs stored.")
_DEAD = Gauge(STORED_NAMES["dead_prompts"], "Prompts that failed for good and are left out.")
_PHASES = Gauge(STORED_NAMES["phase_seconds"], "Seconds spent in a phase.", ["phase"])
_ITERATIONS = Gauge(STORED_NAMES["iterations"], "Iterations by state.", ["state"])


async def refresh(store: Store) -> None:
    async with store.transaction() as session:
        now = await totals(session)
    _SAMPLES.set(now.samples)
    _JUDGEMENTS.set(now.judgements)
    _TOKENS.set(now.tokens)
    _PAIRS.set(now.pairs)
    _DEAD.set(now.dead_prompts)
    for phase, seconds in now.phase_seconds.items():
        _PHASES.labels(phase).set(seconds)
    for state in IterationState:  # those of which there is none any more, too
        _ITERATIONS.labels(state).set(now.iterations.get(state, 0))
