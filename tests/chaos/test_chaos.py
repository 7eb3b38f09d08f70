"""The storm in small: a minute instead of a quarter of an hour. The whole: `make chaos`."""

from pathlib import Path

import pytest

from tests.chaos.__main__ import FAULTS, measure
from tests.chaos.scenarios import Size

SMALL = Size(
    num_prompts=60,
    num_workers=2,
    max_in_flight=16,
    kills={
        "worker-0": 2,
        "worker-1": 1,
        "broker": 1,
        "postgres": 1,
        "judge": 1,
        "engine": 1,
        "controller": 1,
    },
    num_flushes=1,
    down_seconds=(0.2, 0.5),
    within_seconds=800.0,
)
QUICK = {"latency_seconds": 0.1, "latency_spread_seconds": 0.4}


@pytest.mark.timeout(900)  # a minute where both cores are free
async def test_a_storm_loses_nothing_and_adds_nothing(tmp_path: Path) -> None:
    found = await measure(tmp_path, SMALL, {**QUICK, **FAULTS}, "small", ["storm"])
    share = found.pop("repeated_calls_share")
    assert found == {
        "responses": 60 * 4,
        "judgements": 60 * 4 * 3,
        "duplicates": 0,
        "pairs_equal": True,
    }
    assert share < 0.1  # of few calls; the whole suite holds it under 0.03
