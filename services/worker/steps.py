"""The steps that every kind of iteration takes."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop import telemetry
from rewardloop.config import RunConfig, Settings
from rewardloop.records import (
    IterationKind,
    IterationState,
    JobState,
    JudgementMode,
    Phase,
    Purpose,
    Stage,
)
from rewardloop.store import (
    Store,
    engines,
    evaluations,
    events,
    iteration_progress,
    iterations,
    outbox,
    ranked,
    replicas,
    training,
    versions,
)
from rewardloop.store.models import Iteration
from services.worker.swap import bring_to

logger = logging.getLogger("rewardloop.worker")

Step = Callable[[], Awaitable[bool]]
"""Returns whether another step can be taken at once."""


@dataclass
class Steps:
    """One iteration as it was when the controller looked.

    Whatever a step decides is one transaction with `_enter` or `_finish`, which raise
    Conflict if another controller has taken the iteration on meanwhile.
    """

    store: Store
    settings: Settings
    config: RunConfig
    iteration: Iteration

    async def next(self) -> bool:
        """Take the step that is due; returns whether another can be taken at once."""
        if self.iteration.state == IterationState.QUEUED:
            return await self._start()
        return await self.of(Phase(self.iteration.phase))()

    def of(self, phase: Phase) -> Step:
        """The step that leads out of `phase`."""
        return self._steps()[phase]

    def _steps(self) -> dict[Phase, Step]:
        return {
            Phase.TRAIN: lambda: self._await_training(Stage.MODEL, Phase.SWAP),
            Phase.SWAP: self._swap,
            Phase.ASSESS: self._await_assessment,
        }

    async def _start(self) -> bool:
        async with self.store.transaction() as session:
            started = await iterations.try_start(session, self.iteration.id)
            if started and self.iteration.phase == Phase.TRAIN_BASELINE:
                await training.ask_to_go_on(session, self.iteration.id)
            return started

    async def _enter(self, session: AsyncSession, phase: Phase) -> None:
        current = await iterations.locked(session, self.iteration)
        await self._observe(session, current.phase)
        await iterations.enter(session, current, phase)
        logger.info("the iteration enters %s", phase)

    async def _observe(self, session: AsyncSession, phase: str) -> None:
        seconds = await iteration_progress.phase_seconds(session, self.iteration.id)
        if phase in seconds:
            telemetry.PHASE_SECONDS.labels(phase).observe(seconds[phase])

    async def _serve(self, version: str) -> None:
        """Every replica serves `version`; another run may have left its own."""
        reports = await bring_to(self.store, self.settings, version)
        async with self.store.transaction() as session:
            await iterations.locked(session, self.iteration)
            await replicas.require_all_on(session, version)
            await versions.set_serving(session, version)
            events.record(
                session,
                "version.served",
                run_id=self.iteration.run_id,
                iteration_id=self.iteration.id,
                version=version,
                replicas=reports,
            )

    async def _train(self, session: AsyncSession) -> None:
        """Hand the model's training to the trainer; one that was stopped or failed goes on."""
        await training.add(session, self.iteration.id, Stage.MODEL)
        await training.ask_to_go_on(session, self.iteration.id)
        await self._enter(session, Phase.TRAIN)

    async def _await_training(self, stage: Stage, then: Phase) -> bool:
        async with self.store.transaction() as session:
            job = await training.of(session, self.iteration.id, stage)
            if job.state == JobState.FAILED:
                raise training.failure_of(job)
            if job.state != JobState.SUCCEEDED:
                return False
            if not await engines.can_have(session, self.iteration):
                return False
            await self._enter(session, then)
        return True

    async def _swap(self) -> bool:
        version = self.iteration.new_version_id
        assert version is not None
        await self._serve(version)
        async with self.store.transaction() as session:
            if not await ranked.has_split(session, self.iteration.run_id):
                await self._finish(session)
                return False
            await self._ask_health(session, version)
            await self._enter(session, Phase.ASSESS)
        return True

    async def _ask_health(self, session: AsyncSession, version: str) -> None:
        """`version` shall judge the held-out rankings, in every mode that is wanted."""
        wanted = [(Purpose.HEALTH, mode) for mode in health_modes(self.config)]
        await ranked.open_assessments(session, self.iteration.id, version, wanted)
        outbox.add(session, outbox.ASSESS, self.iteration.id)

    async def _await_assessment(self) -> bool:
        async with self.store.transaction() as session:
            if not await ranked.unsettled(session, self.iteration.id):
                await self._finish(session)
        return False

    async def _finish(self, session: AsyncSession) -> None:
        """The iteration is done, and its version meets those before it."""
        current = await iterations.locked(session, self.iteration)
        await self._ask_evaluations(session)
        await self._observe(session, current.phase)
        await iterations.succeed(session, current)

    async def _ask_evaluations(self, session: AsyncSession) -> None:
        if self.config.evaluation is None:
            return
        new, base = self.iteration.new_version_id, self.iteration.trains_version_id
        assert new is not None
        whole = await iterations.of_run(session, self.iteration.run_id)
        baseline = next(
            (i.baseline_version_id for i in whole if i.kind == IterationKind.BOOTSTRAP), None
        )
        for opponent in dict.fromkeys([base, baseline]):
            is_pretrained = self.iteration.kind == IterationKind.BOOTSTRAP and opponent == base
            if opponent is not None and not is_pretrained:
                await evaluations.create(
                    session, new, opponent, self.config.evaluation, self.iteration.run_id
                )


def health_modes(config: RunConfig) -> list[JudgementMode]:
    return list(dict.fromkeys([config.judging.mode, *config.health.also_assess]))
