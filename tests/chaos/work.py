"""What the cluster works on, and what has become of it, read from Postgres."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text

from rewardloop import checkpoints
from rewardloop.clients.http import call, connect
from rewardloop.config import parse_run_config
from rewardloop.errors import TrainingFailed, UpstreamUnavailable
from rewardloop.records import PromptRecord
from rewardloop.store import Store, iterations, prompts, runs, versions
from tests.chaos.cluster import Cluster
from tests.integration.conftest import write_checkpoint

BASE = "base"
NUM_SAMPLES, NUM_JUDGEMENTS = 4, 3
LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Done:
    """What an iteration stored until its pairs were made."""

    seconds: float
    num_responses: int
    num_judgements: int
    num_duplicates: int
    pairs: list[tuple[Any, ...]]


async def prepare(cluster: Cluster, datasets: dict[str, list[str]]) -> None:
    """A schema, a base version that is served, and prompts by dataset."""
    store = Store(cluster.database_url)
    await store.migrate()
    manifest = checkpoints.publish(
        cluster.home.checkpoints, BASE, lambda folder: write_checkpoint(folder, BASE), {}
    )
    async with store.transaction() as session:
        await versions.add(session, BASE, kind="base", parent=None, manifest=manifest)
        await versions.set_serving(session, BASE)
        for dataset, contents in datasets.items():
            await prompts.add(session, dataset, [_record(content) for content in contents])
    await store.close()


def _record(content: str) -> PromptRecord:
    return PromptRecord(({"role": "user", "content": content},), None, "chaos")


class Work:
    """One iteration at a time, until its pairs are there; nothing is trained."""

    def __init__(self, cluster: Cluster) -> None:
        self._store = Store(cluster.database_url)
        self._api = connect(
            cluster.url("api"), cluster.home.credentials().api_key, timeout_seconds=60
        )

    async def close(self) -> None:
        await self._api.aclose()
        await self._store.close()

    async def begin(
        self, dataset: str, *, num_tasks: int, max_in_flight: int, max_dead_share: float = 0.01
    ) -> UUID:
        """Queue an iteration over a whole dataset."""
        config = parse_run_config(
            {
                "prompts": {"dataset": dataset, "num_per_iteration": 1_000_000},
                "sampling": {"num_samples": NUM_SAMPLES},
                "judging": {"num_judgements": NUM_JUDGEMENTS},
                "rollout": {
                    "num_tasks": num_tasks,
                    "max_prompts_in_flight": max_in_flight,
                    "max_dead_share": max_dead_share,
                },
            }
        )
        async with self._store.transaction() as session:
            run = await runs.create(session, config, {})
            (iteration,) = await runs.add_iterations(session, run.id, 1)
            return iteration.id

    async def value(self, sql: str, **parameters: Any) -> Any:
        async with self._store.transaction() as session:
            return await session.scalar(text(sql), parameters)

    async def num_done(self, iteration_id: UUID) -> int | None:
        """How many prompts are done; None while Postgres is away."""
        sql = "SELECT count(*) FROM iteration_prompts WHERE iteration_id = :i AND state = 'done'"
        try:
            return int(await self.value(sql, i=iteration_id))
        except UpstreamUnavailable:
            return None

    async def phase(self, iteration_id: UUID) -> str | None:
        """Its phase, or `failed`; None while Postgres is away."""
        try:
            async with self._store.transaction() as session:
                found = await iterations.get(session, iteration_id)
        except UpstreamUnavailable:
            return None
        return f"failed: {found.error}" if found.state == "failed" else found.phase

    async def reached(self, iteration_id: UUID, *phases: str, within_seconds: float) -> None:
        deadline = time.monotonic() + within_seconds
        while (phase := await self.phase(iteration_id)) not in phases:
            assert phase is None or not phase.startswith("failed"), phase
            assert time.monotonic() < deadline, f"still in {phase}"
            await asyncio.sleep(LOOK_SECONDS)

    async def failed(self, iteration_id: UUID, kind: str, *, within_seconds: float) -> None:
        """Wait until it failed for this reason."""
        deadline = time.monotonic() + within_seconds
        sql = "SELECT error_kind FROM iterations WHERE id = :i AND state = 'failed'"
        while (found := await self.value(sql, i=iteration_id)) != kind:
            assert found is None, found
            assert time.monotonic() < deadline, "it has not failed"
            await asyncio.sleep(LOOK_SECONDS)

    async def dead_prompts(self, iteration_id: UUID) -> dict[int, str]:
        """The kind of the error of each, as the API lists them."""
        path = f"/v1/iterations/{iteration_id}/dead-prompts"
        answer = await call(self._api, "GET", path, retry_seconds=60)
        assert all(item["error"] for item in answer["items"])
        return {item["prompt_id"]: item["error_kind"] for item in answer["items"]}

    async def retry(self, iteration_id: UUID) -> None:
        """All that is dead, and the iteration with it."""
        await call(
            self._api, "POST", f"/v1/iterations/{iteration_id}/dead-prompts/retry", retry_seconds=60
        )

    async def finished(self, iteration_id: UUID, *, within_seconds: float) -> Done:
        """Wait until the pairs are made, end the iteration there, and count."""
        started = time.monotonic()
        await self.reached(iteration_id, "train", within_seconds=within_seconds)
        seconds = time.monotonic() - started
        async with self._store.transaction() as session:
            current = await iterations.get(session, iteration_id, lock=True)
            await iterations.note_failure(
                session, current, TrainingFailed("this suite trains nothing")
            )
        return await self._counted(iteration_id, seconds)

    async def _counted(self, iteration_id: UUID, seconds: float) -> Done:
        responses = await self._rows(
            "SELECT prompt_id, sample_index FROM responses WHERE iteration_id = :i", iteration_id
        )
        judgements = await self._rows(
            "SELECT j.response_id, j.judge_index FROM judgements j"
            " JOIN responses r ON r.id = j.response_id WHERE r.iteration_id = :i",
            iteration_id,
        )
        pairs = await self._rows(
            "SELECT p.prompt_id, c.text, r.text, p.chosen_score, p.rejected_score"
            " FROM preference_pairs p JOIN responses c ON c.id = p.chosen_response_id"
            " JOIN responses r ON r.id = p.rejected_response_id"
            " WHERE p.iteration_id = :i ORDER BY p.prompt_id, c.text, r.text",
            iteration_id,
        )
        num_duplicates = sum(len(rows) - len(set(rows)) for rows in (responses, judgements, pairs))
        return Done(seconds, len(responses), len(judgements), num_duplicates, pairs)

    async def _rows(self, sql: str, iteration_id: UUID) -> list[tuple[Any, ...]]:
        async with self._store.transaction() as session:
            found = await session.execute(text(sql), {"i": iteration_id})
            return [tuple(row) for row in found]
