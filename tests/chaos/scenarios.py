"""What is done to the cluster: nothing, a storm of kills, or one kill of each part in turn."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from uuid import UUID

from redis import Redis, RedisError

from tests.chaos.calls import read_calls, repeated_share, seconds_until_calls
from tests.chaos.cluster import Cluster
from tests.chaos.work import Done, Work

LOOK_SECONDS = 0.2
STORMY, ALONE, SICK = "stormy", "alone", "sick"
"""Datasets: of the undisturbed iteration and the storm, of one kill at a time, and of prompts
among which some are poisoned."""
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """How much is asked, and what is done to it."""

    num_prompts: int
    num_workers: int
    max_in_flight: int
    kills: dict[str, int]
    """How often each part is killed, at random shares of the work done."""
    num_flushes: int = 0
    worker_kill_seconds: tuple[float, float] | None = None
    """A worker is killed every so many seconds, drawn between these two; by `kills` alone if
    None, which ends on a machine so slow that workers would be killed before they work."""
    down_seconds: tuple[float, float] = (0.5, 3.0)
    within_seconds: float = 1800.0
    parts_alone: tuple[str, ...] = (
        "worker-0",
        "broker",
        "postgres",
        "judge",
        "engine",
        "controller",
        "api",
    )
    """What is killed alone, with a single worker at work."""


async def undisturbed(cluster: Cluster, work: Work, size: Size) -> Done:
    iteration_id = await work.begin(
        STORMY, num_tasks=size.num_workers, max_in_flight=size.max_in_flight
    )
    return await work.finished(iteration_id, within_seconds=size.within_seconds)


@dataclass
class Storm:
    """Kills, all drawn from a seed, while one iteration is worked on."""

    cluster: Cluster
    work: Work
    size: Size
    seed: str
    tell: Tell
    num_kills: dict[str, int] = field(default_factory=dict)

    async def weather(self) -> tuple[Done, float]:
        """What was stored all the same, and the share of repeated calls."""
        began = time.time()
        iteration_id = await self.work.begin(
            STORMY, num_tasks=self.size.num_workers, max_in_flight=self.size.max_in_flight
        )
        await self.work.reached(iteration_id, "rollout", within_seconds=120)
        killers = [
            asyncio.create_task(self._kill(part, times, iteration_id))
            for part, times in self.size.kills.items()
        ]
        killers.append(asyncio.create_task(self._flush(iteration_id)))
        if self.size.worker_kill_seconds is not None:
            killers.append(
                asyncio.create_task(self._kill_workers(self.size.worker_kill_seconds, iteration_id))
            )
        try:
            done = await self.work.finished(iteration_id, within_seconds=self.size.within_seconds)
        finally:
            for killer in killers:
                killer.cancel()
            results = await asyncio.gather(*killers, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
        return done, repeated_share(read_calls(self.cluster.calls, since=began))

    async def _kill_workers(self, every: tuple[float, float], iteration_id: UUID) -> None:
        """Until nearly all is done: on a machine where a worker needs longer to start than the
        next kill is away, the last prompt would never be."""
        chance = Random(f"{self.seed} workers")
        while (await self.work.num_done(iteration_id) or 0) < 0.97 * self.size.num_prompts:
            await asyncio.sleep(chance.uniform(*every))
            await self._bounce(chance.choice(self.cluster.workers), chance)

    async def _kill(self, part: str, times: int, iteration_id: UUID) -> None:
        chance = Random(f"{self.seed} {part}")
        for share in sorted(chance.uniform(0.02, 0.9) for _ in range(times)):
            await self._share_done(iteration_id, share)
            await self._bounce(part, chance)

    async def _flush(self, iteration_id: UUID) -> None:
        chance = Random(f"{self.seed} flush")
        for share in sorted(chance.uniform(0.1, 0.9) for _ in range(self.size.num_flushes)):
            await self._share_done(iteration_id, share)
            while not await asyncio.to_thread(self._flushed):
                await asyncio.sleep(LOOK_SECONDS)
            self._count("flush")

    def _flushed(self) -> bool:
        """Whether the broker was there to be emptied."""
        with suppress(RedisError), Redis.from_url(self.cluster.broker_url) as client:
            client.flushall()
            return True
        return False

    async def _share_done(self, iteration_id: UUID, share: float) -> None:
        wanted = share * self.size.num_prompts
        while (await self.work.num_done(iteration_id) or 0) < wanted:
            await asyncio.sleep(LOOK_SECONDS)

    async def _bounce(self, part: str, chance: Random) -> None:
        down = chance.uniform(*self.size.down_seconds)
        # Once begun it is brought to its end: the next iteration needs every part.
        await asyncio.shield(self.cluster.bounce(part, down))
        self._count("worker" if part.startswith("worker") else part)

    def _count(self, part: str) -> None:
        self.num_kills[part] = self.num_kills.get(part, 0) + 1
        self.tell(f"killed {part}")


async def recovery_seconds(
    cluster: Cluster, work: Work, size: Size, seed: str, tell: Tell
) -> dict[str, float]:
    """Seconds from each part's return until calls flow again, with a single worker at work.

    A worker and the controller are back when their process was started, the others when they
    answer.
    """
    for worker in cluster.workers[1:]:
        cluster.kill(worker)
    iteration_id = await work.begin(ALONE, num_tasks=1, max_in_flight=8)
    await work.reached(iteration_id, "rollout", within_seconds=120)
    chance, found = Random(f"{seed} alone"), {}
    for part in size.parts_alone:
        await _calls_after(cluster, time.time())
        back = await cluster.bounce(part, chance.uniform(2.0, 3.0))
        found[part.partition("-")[0]] = await _calls_after(cluster, back)
        tell(f"{part}: {found[part.partition('-')[0]]:.1f} s")
        await asyncio.sleep(2)
    return found


async def _calls_after(cluster: Cluster, moment: float) -> float:
    deadline = time.monotonic() + 300
    while (seconds := seconds_until_calls(read_calls(cluster.calls), moment)) is None:
        assert time.monotonic() < deadline, "no calls for five minutes"
        await asyncio.sleep(LOOK_SECONDS)
    return round(seconds, 1)


@dataclass(frozen=True)
class Sick:
    """What became of a dataset of which some prompts are always answered by 500 or never."""

    good_seconds: float
    """From the start until all but these were done."""
    listed: dict[int, str]
    """The dead prompts that the API lists, with the kinds of their errors."""
    mended: Done
    """After the engine was mended and the iteration was retried."""


def sick_contents(num_prompts: int) -> list[str]:
    """Questions of which 5 in 1,000 (at least one) are poisoned, and as many hang."""
    num_each = max(1, num_prompts * 5 // 1000)
    marks = ["[poison 500]"] * num_each + ["[poison hang]"] * num_each
    at = {n * (num_prompts // len(marks)): mark for n, mark in enumerate(marks)}
    return [f"Question {n} of the sick? {at.get(n, '')}" for n in range(num_prompts)]


async def sickness(cluster: Cluster, work: Work, size: Size, quiet: dict[str, object]) -> Sick:
    """Poisoned and hanging prompts among good ones; then the mend, and a retry."""
    num_bad = sum("[poison" in content for content in sick_contents(size.num_prompts))
    cluster.faults = {**quiet, "heeds_poison": True}
    await cluster.bounce("engine", 0.0)
    iteration_id = await work.begin(
        SICK, num_tasks=size.num_workers, max_in_flight=size.max_in_flight, max_dead_share=0.0
    )
    started = time.monotonic()
    while (await work.num_done(iteration_id) or 0) < size.num_prompts - num_bad:
        assert time.monotonic() < started + size.within_seconds, "good prompts are not done"
        await asyncio.sleep(LOOK_SECONDS)
    good_seconds = time.monotonic() - started
    await work.failed(iteration_id, "too-many-dead", within_seconds=size.within_seconds)
    listed = await work.dead_prompts(iteration_id)
    cluster.faults = quiet
    await cluster.bounce("engine", 0.0)
    await work.retry(iteration_id)
    mended = await work.finished(iteration_id, within_seconds=size.within_seconds)
    return Sick(good_seconds, listed, mended)
