"""Judge human-ranked responses with the version that is being served.

One task at a time works on an iteration (an advisory lock); what it has stored is never
asked for again, so it may die and be sent again at any time.
"""

from dataclasses import dataclass
from uuid import UUID

from celery import Celery

from rewardloop import telemetry
from rewardloop.clients.judge import JudgeClient
from rewardloop.clients.server import request_key
from rewardloop.config import Judging, RunConfig, Settings
from rewardloop.queue import relay
from rewardloop.records import JudgementMode, Phase, Purpose
from rewardloop.store import Store, iterations, outbox, ranked
from rewardloop.store.models import Assessment
from rewardloop.store.ranked import Unjudged
from services.worker.phase import failures_noted, running_in, work_through

PHASES = (Phase.JUDGE_RANKED, Phase.ASSESS)


def lock_name(iteration_id: UUID) -> str:
    return f"assess:{iteration_id}"


async def run(store: Store, app: Celery, settings: Settings, iteration_id: UUID) -> None:
    """Work on the iteration's open assessments until all are settled or time is up."""
    async with store.advisory_lock(lock_name(iteration_id)) as held:
        found = await running_in(store, iteration_id, *PHASES)
        if not held or found is None:
            return
        iteration, config = found
        async with failures_noted(store, iteration):
            key = settings.api_key.get_secret_value()
            async with JudgeClient(settings.judge_url, key) as judge:
                await Assessing(store, judge, config, iteration.run_id, iteration_id).work()
        async with store.transaction() as session:
            unsettled = await ranked.unsettled(session, iteration_id)
            task = outbox.ASSESS if unsettled else outbox.ADVANCE
            outbox.add(session, task, iteration_id)
    await relay(store, app)


@dataclass
class Assessing:
    """The assessments of one iteration."""

    store: Store
    judge: JudgeClient
    config: RunConfig
    run_id: UUID
    iteration_id: UUID

    async def work(self) -> None:
        async with self.store.transaction() as session:
            unsettled = await ranked.unsettled(session, self.iteration_id)
        for assessment in unsettled:
            if not await self._work_on(assessment):
                return

    async def _work_on(self, assessment: Assessment) -> bool:
        """Returns whether the assessment is settled now."""
        judging = judging_of(self.config, assessment)

        async def judge(item: Unjudged) -> None:
            key = request_key("assess", assessment.id, item.ranked_response_id, item.missing)
            written = await self.judge.judge(
                item.messages, item.text, judging, len(item.missing), key=key
            )
            async with self.store.transaction() as session:
                await ranked.add_judgements(session, assessment.id, item, written)
                await iterations.note_progress(session, self.iteration_id)
            for judgement in written:
                telemetry.JUDGEMENTS.labels(judgement.verdict.reason or "scored").inc()

        limit = self.config.rollout.max_prompts_in_flight * self.config.sampling.num_samples
        await work_through(await self._unjudged(assessment, judging), judge, limit=limit)
        if await self._unjudged(assessment, judging):
            return False
        async with self.store.transaction() as session:
            await ranked.settle(session, assessment)
        return True

    async def _unjudged(self, assessment: Assessment, judging: Judging) -> list[Unjudged]:
        async with self.store.transaction() as session:
            return await ranked.unjudged(session, self.run_id, assessment, judging.num_judgements)


def judging_of(config: RunConfig, assessment: Assessment) -> Judging:
    """How this assessment's judgements are asked for."""
    if assessment.purpose == Purpose.EFT:
        assert config.bootstrap is not None
        return config.bootstrap.eft.judging
    return config.judging.model_copy(update={"mode": JudgementMode(assessment.mode)})
