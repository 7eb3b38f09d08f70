"""Judge human-ranked responses with the version that is being served.

One task at a time works on an iteration (an advisory lock); what it has stored is never
asked for again, so it may die and be sent again at any time. A response that cannot be judged
stops no other one: after its attempts it is left out, and counted.
"""

from dataclasses import dataclass
from uuid import UUID

from celery import Celery
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop import telemetry
from rewardloop.clients.judge import JudgeClient
from rewardloop.clients.server import request_key
from rewardloop.config import Judging, RunConfig, Settings
from rewardloop.queue import relay
from rewardloop.records import JudgementMode, Phase, Purpose
from rewardloop.store import Store, failed_items, iterations, locks, outbox, ranked
from rewardloop.store.failed_items import Kind
from rewardloop.store.models import Assessment, Iteration
from rewardloop.store.ranked import Unjudged
from services.worker.attempts import Servers, work_through
from services.worker.durable import stored
from services.worker.listed import Listed, left_out
from services.worker.permit import Permit, of_iteration, permitted
from services.worker.phase import WORK_SECONDS, failures_noted, running_in
from services.worker.probes import JUDGE, probe_judge

KIND = Kind.RANKED_RESPONSE
PHASES = (Phase.JUDGE_RANKED, Phase.ASSESS)


def lock_name(iteration_id: UUID) -> str:
    return locks.assessing(iteration_id)


async def run(store: Store, app: Celery, settings: Settings, iteration_id: UUID) -> None:
    """Work on the iteration's open assessments until all are settled or time is up."""
    async with store.advisory_lock(lock_name(iteration_id)) as held:
        found = await running_in(store, iteration_id, *PHASES)
        if not held or found is None:
            return
        iteration, config = found
        key = settings.api_key.get_secret_value()
        async with (
            failures_noted(store, iteration),
            permitted(of_iteration(store, iteration)) as permit,
            JudgeClient(settings.judge_url, key) as judge,
        ):
            await Assessing(store, judge, config, iteration, permit).work()
        async with store.transaction() as session:
            unsettled = permit.may_take_more and await ranked.unsettled(session, iteration_id)
            task = outbox.ASSESS if unsettled else outbox.ADVANCE
            outbox.add(session, task, iteration_id)
    await relay(store, app)


@dataclass
class Assessing:
    """The assessments of one iteration."""

    store: Store
    judge: JudgeClient
    config: RunConfig
    iteration: Iteration
    permit: Permit

    def __post_init__(self) -> None:
        self._servers = Servers({JUDGE: lambda: probe_judge(self.judge, self.config.judging)})

    async def work(self) -> None:
        async with self.store.transaction() as session:
            unsettled = await ranked.unsettled(session, self.iteration.id)
        for assessment in unsettled:
            if not await self._work_on(assessment):
                return

    async def _work_on(self, assessment: Assessment) -> bool:
        """Returns whether the assessment is settled now."""
        judging = judging_of(self.config, assessment)

        async def judge(item: Unjudged) -> None:
            key = request_key("assess", assessment.id, item.ranked_response_id, item.missing)
            written = await self._servers.asked(
                JUDGE,
                self.judge.judge(item.messages, item.text, judging, len(item.missing), key=key),
            )

            async def write(session: AsyncSession) -> None:
                await iterations.require_unchanged(session, self.iteration)
                await ranked.add_judgements(session, assessment.id, item, written)
                await iterations.note_progress(session, self.iteration.id)

            await stored(self.store, write)
            for judgement in written:
                telemetry.JUDGEMENTS.labels(judgement.verdict.reason or "scored").inc()

        max_attempts = self.config.rollout.max_attempts
        source = Listed(self.store, self.iteration.id, KIND, judge, max_attempts)
        await source.fill(await self._unjudged(assessment, judging))
        limit = self.config.rollout.max_prompts_in_flight * self.config.sampling.num_samples
        await work_through(source, self._servers, self.permit, limit=limit, seconds=WORK_SECONDS)
        return await self._settle(assessment, set(await self._unjudged(assessment, judging)))

    async def _settle(self, assessment: Assessment, unjudged: set[str]) -> bool:
        """
        Raises:
            TooManyDead: too many responses could not be judged.
        """
        async with self.store.transaction() as session:
            dead = await failed_items.dead(session, self.iteration.id, KIND)
            dead = [item for item in dead if item.item in unjudged]
            if len(dead) < len(unjudged):
                return False
            num = len(dead) + await ranked.num_judged(session, assessment.id)
            mend = (
                f"See them all with `rewardloop dead {self.iteration.id}`, mend the cause, then "
                f"`rewardloop retry-prompts {self.iteration.id}`"
            )
            found = left_out("ranked responses", dead, num, self.config.rollout, mend)
            if found is not None:
                told = {f"{assessment.purpose} {assessment.mode}": found}
                await iterations.add_to_report(
                    session, self.iteration.id, "dead_ranked_responses", told
                )
            await ranked.settle(session, assessment)
        return True

    async def _unjudged(self, assessment: Assessment, judging: Judging) -> dict[str, Unjudged]:
        """By their names, which are unique in the iteration."""
        async with self.store.transaction() as session:
            found = await ranked.unjudged(
                session, self.iteration.run_id, assessment, judging.num_judgements
            )
        return {
            f"ranked response {item.ranked_response_id}, assessment {assessment.id}": item
            for item in found
        }


def judging_of(config: RunConfig, assessment: Assessment) -> Judging:
    """How this assessment's judgements are asked for."""
    if assessment.purpose == Purpose.EFT:
        assert config.bootstrap is not None
        return config.bootstrap.eft.judging
    return config.judging.in_mode(JudgementMode(assessment.mode))
