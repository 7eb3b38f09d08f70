"""A loop with `lag: 1` against one with `lag: 0`, on stub timings of a node whose trainer has
devices of its own.

    python -m benchmarks.overlap [--seconds 10] [--rounds 3]

Everything of the loop runs as in production, a process each: controller, worker, judge, Postgres
and broker. The engine is the stub, which takes half of `--seconds` for an answer and as long for
its judgements, so that a roll-out takes about `--seconds`; the training is a wait of `--seconds`
that publishes a small checkpoint. Each side is a run of three iterations; the sides take turns.

`overlap_ratio`: the seconds of the last two iterations, from the end of the first to the end of
the third, with lag 1 over those with lag 0; the median of the rounds. `overlap_from_start`: the
same of all three from the start. There the first iteration has nothing to overlap with: with no
cost but sampling and training it would be 2/3 (and 3/4 for two iterations).
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from celery import Celery

from benchmarks.fanout_home import DATASET, Bench, bench
from rewardloop import checkpoints
from rewardloop.config import Settings, load_settings, parse_run_config
from rewardloop.embedded.process import Process
from rewardloop.queue import make_app, relay
from rewardloop.store import Store, iteration_progress, iterations, runs, training, versions
from rewardloop.store.models import Iteration, TrainingJob
from services.trainer.plan import plan_of
from tests.integration.conftest import write_checkpoint

NUM_ITERATIONS = 3
NUM_PROMPTS = 16
LOOK_SECONDS = 0.1
MAX_SECONDS = 900.0


class StubTrainer:
    """Takes training jobs as the trainer does; the training itself is a wait."""

    def __init__(self, store: Store, app: Celery, settings: Settings, seconds: float) -> None:
        self._store, self._app, self._settings = store, app, settings
        self._seconds = seconds

    async def run(self) -> None:
        while True:
            async with self._store.transaction() as session:
                job = await training.lease(session, "stub", MAX_SECONDS)
            if job is None:
                await asyncio.sleep(LOOK_SECONDS)
            else:
                await self._work(job)

    async def _work(self, job: TrainingJob) -> None:
        async with self._store.transaction() as session:
            plan = await plan_of(session, job)
        await asyncio.sleep(self._seconds)
        manifest = checkpoints.publish(
            self._settings.checkpoint_root,
            plan.version,
            lambda folder: write_checkpoint(folder, plan.version),
            plan.about,
        )
        async with self._store.transaction() as session:
            await versions.add(
                session, plan.version, kind=plan.kind, parent=plan.parent, manifest=manifest
            )
            await training.succeed(session, job, plan.version)
        await relay(self._store, self._app)


@asynccontextmanager
async def loop_running(made: Bench, seconds: float) -> AsyncIterator[Celery]:
    """Controller, worker and stub trainer beside what `bench` started."""
    os.environ.update(made.environment)
    settings = load_settings("trainer")
    app = make_app(settings)
    for role in ("controller", "rollout"):
        command = [sys.executable, "-m", "services.worker", role]
        log = made.folder / f"{role}.log"
        made.servers[role] = Process(role, command, made.environment, log)
    async with asyncio.TaskGroup() as beside:  # an error of the trainer's ends the benchmark
        trainer = beside.create_task(StubTrainer(made.store, app, settings, seconds).run())
        yield app
        trainer.cancel()


async def side(made: Bench, app: Celery, lag: int) -> list[Iteration]:
    """A run of three iterations, from its start to its end."""
    config = parse_run_config(
        {
            "name": f"lag {lag}",
            "lag": lag,
            "base_version": "base",
            "prompts": {"dataset": DATASET, "num_per_iteration": NUM_PROMPTS},
            "judging": {"mode": "constrained"},
        }
    )
    async with made.store.transaction() as session:
        run = await runs.create(session, config, {})
        await runs.add_iterations(session, run.id, NUM_ITERATIONS)
    await relay(made.store, app)
    async with asyncio.timeout(MAX_SECONDS):
        while (found := await _looked(made, run.id))[-1].state != "succeeded":
            await asyncio.sleep(LOOK_SECONDS)
    return found


async def _looked(made: Bench, run_id: UUID) -> list[Iteration]:
    async with made.store.transaction() as session:
        found = await iterations.of_run(session, run_id)
    failed = next((one.error for one in found if one.error), None)
    assert failed is None, failed
    for server in made.servers.values():
        server.require_alive()
    return found


def between(begins: Any, ends: Any) -> float:
    return float((ends - begins).total_seconds())


async def told(made: Bench, number: int, lag: int, of_run: list[Iteration]) -> tuple[float, float]:
    """Seconds of the last two iterations, and of all three; prints a row."""
    async with made.store.transaction() as session:
        phases = [await iteration_progress.phase_seconds(session, one.id) for one in of_run]
    last_two = between(of_run[0].finished_at, of_run[-1].finished_at)
    all_three = between(of_run[0].started_at, of_run[-1].finished_at)
    spent = ", ".join(f"{p['rollout']:.1f} + {p['train']:.1f}" for p in phases)
    print(
        f"round {number + 1}, lag {lag}: last two iterations {last_two:5.1f} s, all three "
        f"{all_three:5.1f} s; roll-out + train: {spent}",
        flush=True,
    )
    return last_two, all_three


async def measure(folder: Path, seconds: float, rounds: int) -> dict[str, Any]:
    found: dict[int, list[tuple[float, float]]] = {0: [], 1: []}
    async with (
        bench(folder, NUM_PROMPTS * NUM_ITERATIONS, seconds / 2) as made,
        loop_running(made, seconds) as app,
    ):
        for number in range(rounds):
            for lag in (0, 1):
                of_run = await side(made, app, lag)
                found[lag].append(await told(made, number, lag, of_run))
    ratios = [
        [ours / theirs for ours, theirs in zip(one, other, strict=True)]
        for one, other in zip(found[1], found[0], strict=True)
    ]
    last_two, all_three = (statistics.median(column) for column in zip(*ratios, strict=True))
    return {
        "overlap_ratio": round(last_two, 3),
        "overlap_from_start": round(all_three, 3),
        "overlap_seconds": [
            [round(lag_1[0], 1), round(lag_0[0], 1)]
            for lag_1, lag_0 in zip(found[1], found[0], strict=True)
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of a roll-out, of a training")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rewardloop-bench-") as folder:
        print(json.dumps(asyncio.run(measure(Path(folder), options.seconds, options.rounds))))


if __name__ == "__main__":
    main()
