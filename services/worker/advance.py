"""The controller: takes an iteration from phase to phase.

    waiting -> prepare -> rollout -> pairing -> train -> swap -> done

`run` takes every step that can be taken now and returns; whoever finishes the
work that a phase waits for sends for it again, and so does the reconciler. It
may run at any time, any number of times: steps look at Postgres, not at the
message. An advisory lock keeps two controllers off one iteration.
"""

import logging
from dataclasses import dataclass
from uuid import UUID

from celery import Celery
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop import queue_names, telemetry
from rewardloop.config import RunConfig, Settings
from rewardloop.errors import NoPairs, RewardloopError, TrainingFailed
from rewardloop.queue import relay
from rewardloop.records import IterationState, JobState, Phase
from rewardloop.store import (
    Store,
    events,
    iterations,
    outbox,
    pairs,
    rollouts,
    runs,
    training,
    versions,
)
from rewardloop.store.models import Iteration
from services.worker.swap import activate_everywhere

logger = logging.getLogger("rewardloop.worker")


async def run(store: Store, app: Celery, settings: Settings, iteration_id: UUID) -> None:
    async with store.advisory_lock(f"advance:{iteration_id}") as held:
        if not held:
            return
        controller = Controller(store, settings, iteration_id)
        while await controller.step():
            await relay(store, app)
    await relay(store, app)


@dataclass
class Controller:
    store: Store
    settings: Settings
    iteration_id: UUID

    async def step(self) -> bool:
        """Take one step; returns whether another can be taken at once."""
        async with self.store.transaction() as session:
            iteration = await iterations.get(session, self.iteration_id)
            run_row = await runs.get(session, iteration.run_id)
        steps = {
            Phase.WAITING: self._start,
            Phase.PREPARE: self._prepare,
            Phase.ROLLOUT: self._await_rollout,
            Phase.PAIRING: self._pair,
            Phase.TRAIN: self._await_training,
            Phase.SWAP: self._swap,
        }
        if iteration.state not in (IterationState.QUEUED, IterationState.RUNNING):
            return False
        config = RunConfig.model_validate(run_row.config)
        try:
            return await steps[Phase(iteration.phase)](iteration, config)
        except RewardloopError as error:
            await self._record(error)
            return False

    async def _record(self, error: RewardloopError) -> None:
        async with self.store.transaction() as session:
            iteration = await iterations.get(session, self.iteration_id, lock=True)
            await iterations.note_failure(session, iteration, error)

    async def _start(self, iteration: Iteration, _: RunConfig) -> bool:
        async with self.store.transaction() as session:
            return await iterations.try_start(session, iteration.id)

    async def _prepare(self, iteration: Iteration, config: RunConfig) -> bool:
        """Every replica serves the base version; another run may have left its own."""
        assert iteration.base_version_id is not None
        await self._serve(iteration, iteration.base_version_id)
        async with self.store.transaction() as session:
            await self._enter(session, iteration.id, Phase.ROLLOUT)
            outbox.add(session, queue_names.ROLLOUT, iteration.id, times=config.rollout.num_tasks)
        return False

    async def _serve(self, iteration: Iteration, version: str) -> None:
        async with self.store.transaction() as session:
            serving = await versions.serving(session)
        reports = await activate_everywhere(self.settings, version, fallback=serving)
        async with self.store.transaction() as session:
            await versions.set_serving(session, version)
            events.record(
                session,
                "version.served",
                run_id=iteration.run_id,
                iteration_id=iteration.id,
                version=version,
                replicas=reports,
            )

    async def _await_rollout(self, iteration: Iteration, _: RunConfig) -> bool:
        async with self.store.transaction() as session:
            if not await rollouts.is_complete(session, iteration.id):
                return False
            return await self._enter(session, iteration.id, Phase.PAIRING)

    async def _enter(self, session: AsyncSession, i: UUID, phase: Phase) -> bool:
        current = await iterations.get(session, i, lock=True)
        seconds = await iterations.phase_seconds(session, i)
        if current.phase in seconds:
            telemetry.PHASE_SECONDS.labels(current.phase).observe(seconds[current.phase])
        await iterations.enter(session, current, phase)
        return True

    async def _pair(self, iteration: Iteration, config: RunConfig) -> bool:
        async with self.store.transaction() as session:
            if not await pairs.build(session, iteration, config.pairing):
                raise NoPairs(
                    "no prompt has a best and a worst response: every mean score is tied or "
                    "missing. See GET /v1/iterations/{id}/scores; judge with more samples, another "
                    "judge, or judging.mode 'constrained' if scores are missing"
                )
            await training.add(session, iteration.id)
            return await self._enter(session, iteration.id, Phase.TRAIN)

    async def _await_training(self, iteration: Iteration, _: RunConfig) -> bool:
        async with self.store.transaction() as session:
            job = await training.of(session, iteration.id)
            if job.state == JobState.FAILED:
                raise TrainingFailed(job.error or "the trainer gave no reason")
            if job.state != JobState.SUCCEEDED:
                return False
            return await self._enter(session, iteration.id, Phase.SWAP)

    async def _swap(self, iteration: Iteration, _: RunConfig) -> bool:
        assert iteration.new_version_id is not None
        await self._serve(iteration, iteration.new_version_id)
        async with self.store.transaction() as session:
            current = await iterations.get(session, iteration.id, lock=True)
            seconds = await iterations.phase_seconds(session, iteration.id)
            telemetry.PHASE_SECONDS.labels(Phase.SWAP).observe(seconds[Phase.SWAP])
            await iterations.succeed(session, current)
        return False
