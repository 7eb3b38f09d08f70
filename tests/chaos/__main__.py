"""Kill everything, again and again, and show that nothing is lost: `python -m tests.chaos`.

Ends in one JSON object:

    responses, judgements, duplicates   what the iteration under the storm stored
    pairs_equal                         whether its pairs are those of an undisturbed iteration
    repeated_calls_share                calls of the engine that had been begun before
    recovery_seconds                    by part: from its return until calls flow, one worker
    dead_prompts_share_of_time          time of the good prompts beside poisoned and hanging ones,
                                        by the undisturbed time
    trainer_resumes_equal               whether a training that is killed ends as one that is not
    real_engine                         what `tests.chaos.real_engine` ends in: a real vLLM, killed

The exit status is 1 where the last one found anything off.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.chaos.cluster import Cluster, running
from tests.chaos.scenarios import (
    ALONE,
    SICK,
    STORMY,
    Size,
    Storm,
    recovery_seconds,
    sick_contents,
    sickness,
    undisturbed,
)
from tests.chaos.work import Done, Work, prepare

WHOLE = Size(
    num_prompts=1000,
    num_workers=3,
    max_in_flight=32,
    kills={"broker": 5, "postgres": 5, "api": 3, "judge": 2, "engine": 3, "controller": 2},
    num_flushes=1,
    worker_kill_seconds=(5.0, 20.0),
)
IN_CLUSTER = ("storm", "sickness", "recovery", "trainer")
PARTS = (*IN_CLUSTER, "real")
NUM_ALONE = 2000
"""More than a single worker does while each part is killed once."""
SLOW = {"latency_seconds": 1.0, "latency_spread_seconds": 4.0}
FAULTS = {"error_rate": 0.05, "hang_rate": 0.02, "cut_rate": 0.01}


def tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


@asynccontextmanager
async def prepared(
    folder: Path, size: Size, faults: dict[str, Any], seed: str
) -> AsyncIterator[tuple[Cluster, Work]]:
    """A cluster whose engine is slow but sound, with both datasets."""
    datasets = {
        STORMY: [f"Question {n} in the storm?" for n in range(size.num_prompts)],
        SICK: sick_contents(size.num_prompts),
        ALONE: [f"Question {n} alone?" for n in range(NUM_ALONE)],
    }
    async with running(
        folder,
        num_workers=size.num_workers,
        faults={**_quiet(faults), "seed": seed},
        prepare=lambda cluster: prepare(cluster, datasets),
    ) as cluster:
        work = Work(cluster)
        try:
            yield cluster, work
        finally:
            await work.close()


def _quiet(faults: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in faults.items() if not name.endswith("_rate")}


async def measure(
    folder: Path, size: Size, faults: dict[str, Any], seed: str, parts: Collection[str]
) -> dict[str, Any]:
    """An undisturbed iteration, and what `parts` names of the rest."""
    faults = {**faults, "seed": seed}
    found: dict[str, Any] = {}
    async with prepared(folder, size, faults, seed) as (cluster, work):
        calm = await undisturbed(cluster, work, size)
        tell(f"undisturbed: {calm.seconds:.0f} s")
        if "storm" in parts:
            found |= await _storm(cluster, work, size, faults, calm)
        if "sickness" in parts:
            found |= await _sickness(cluster, work, size, _quiet(faults), calm)
        if "recovery" in parts:
            cluster.faults = faults
            await cluster.bounce("engine", 0.0)
            found["recovery_seconds"] = await recovery_seconds(cluster, work, size, seed, tell)
    if "trainer" in parts:
        found["trainer_resumes_equal"] = _trainer_resumes_equal()
    return found


async def _storm(
    cluster: Cluster, work: Work, size: Size, faults: dict[str, Any], calm: Done
) -> dict[str, Any]:
    cluster.faults = faults
    await cluster.bounce("engine", 0.0)
    storm = Storm(cluster, work, size, faults["seed"], tell)
    done, repeated = await storm.weather()
    tell(f"storm: {done.seconds:.0f} s, kills {storm.num_kills}")
    return {
        "responses": done.num_responses,
        "judgements": done.num_judgements,
        "duplicates": done.num_duplicates,
        "pairs_equal": bool(calm.pairs) and done.pairs == calm.pairs,
        "repeated_calls_share": round(repeated, 4),
    }


async def _sickness(
    cluster: Cluster, work: Work, size: Size, quiet: dict[str, Any], calm: Done
) -> dict[str, Any]:
    sick = await sickness(cluster, work, size, quiet)
    num_bad = sum("[poison" in content for content in sick_contents(size.num_prompts))
    assert len(sick.listed) == num_bad, f"{num_bad} prompts are sick, listed: {sick.listed}"
    assert sick.mended.num_responses == calm.num_responses, "a retry does not complete it"
    assert sick.mended.num_judgements == calm.num_judgements, "a retry does not complete it"
    tell(f"sick: good prompts after {sick.good_seconds:.0f} s, dead: {sick.listed}")
    return {"dead_prompts_share_of_time": round(sick.good_seconds / calm.seconds, 2)}


def _trainer_resumes_equal() -> bool:
    """The end-to-end test of real trainings that are killed at five steps each."""
    test = "tests/e2e/test_resume.py::test_five_kills_change_nothing"
    command = [sys.executable, "-m", "pytest", "-q", test]
    return subprocess.run(command, stdout=sys.stderr, check=False).returncode == 0


def _real_engine() -> tuple[bool, dict[str, Any]]:
    """Whether the program found nothing off, and the object that its output ends in."""
    command = [sys.executable, "-m", "tests.chaos.real_engine"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    *_, last = done.stdout.strip().splitlines() or ["{}"]
    return done.returncode == 0, json.loads(last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=WHOLE.num_prompts)
    parser.add_argument("--seed", default="0", help="everything random is drawn from it")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    options = parser.parse_args()
    size = Size(**{**WHOLE.__dict__, "num_prompts": options.prompts})
    found, is_well = {}, True
    if set(options.parts) & set(IN_CLUSTER):
        with tempfile.TemporaryDirectory(prefix="rewardloop-chaos-") as folder:
            found = asyncio.run(
                measure(Path(folder), size, {**SLOW, **FAULTS}, options.seed, options.parts)
            )
    if "real" in options.parts:
        is_well, found["real_engine"] = _real_engine()
    print(json.dumps(found))
    sys.exit(not is_well)


if __name__ == "__main__":
    main()
