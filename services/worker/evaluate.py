"""Head to head of two versions: each answers, then a judge compares, in both orders.

One task at a time works on an evaluation (an advisory lock), and while it is running no
iteration is: the generators serve one version after the other. Answers and comparisons
are stored as they come, and what is stored is never asked for again. An answer or a comparison
that fails stops no other one: after its attempts it is left out, and counted. How often and how
many: as in a run that says nothing of it (`rollout.max_attempts`, `rollout.max_dead_share`).
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from celery import Celery
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.clients.judge import JudgeClient
from rewardloop.clients.server import request_key
from rewardloop.config import Evaluation as EvaluationConfig
from rewardloop.config import Rollout, Sampling, Settings
from rewardloop.errors import InvalidInput, UpstreamRejected, UpstreamUnavailable, recordable
from rewardloop.queue import relay
from rewardloop.records import Message, Sample
from rewardloop.store import Store, evaluations, failed_items, locks, outbox, replicas, versions
from rewardloop.store.evaluations import Uncompared
from rewardloop.store.failed_items import Kind
from rewardloop.store.models import Evaluation
from services.worker.attempts import Servers, work_through
from services.worker.durable import stored
from services.worker.fleet import generators
from services.worker.listed import Listed, left_out
from services.worker.permit import Permit, of_evaluation, permitted
from services.worker.phase import WORK_SECONDS
from services.worker.probes import GENERATOR, JUDGE, QUESTION, probe_comparing
from services.worker.swap import bring_to

MAX_IN_FLIGHT = 64
LIMITS = Rollout()
"""An evaluation belongs to no run's config."""

Unanswered = tuple[int, tuple[Message, ...]]
ItemT = TypeVar("ItemT")


def lock_name(evaluation_id: UUID) -> str:
    return locks.evaluating(evaluation_id)


async def run(store: Store, app: Celery, settings: Settings, evaluation_id: UUID) -> None:
    """Work on the evaluation until it has its result or time is up."""
    async with store.advisory_lock(lock_name(evaluation_id)) as held:
        if not held:
            return
        async with store.transaction() as session:
            if not await evaluations.try_start(session, evaluation_id):
                return
            evaluation = await evaluations.get(session, evaluation_id)
        done = False
        try:
            async with permitted(of_evaluation(store, evaluation)) as permit:
                done = await Evaluating(store, settings, evaluation, permit).work()
        except Exception as error:
            async with store.transaction() as session:
                await evaluations.note_failure(session, evaluation_id, recordable(error))
            raise
        if not done:
            async with store.transaction() as session:
                if not await evaluations.settle(session, evaluation_id):
                    outbox.add(session, outbox.EVALUATE, evaluation_id)
    await relay(store, app)


@dataclass
class Evaluating:
    store: Store
    settings: Settings
    evaluation: Evaluation
    permit: Permit

    def __post_init__(self) -> None:
        self.config = EvaluationConfig.model_validate(self.evaluation.config)
        self.key = self.settings.api_key.get_secret_value()

    async def work(self) -> bool:
        """Returns whether the evaluation has its result."""
        for version in (self.evaluation.version_a_id, self.evaluation.version_b_id):
            if not await self._answers_of(version):
                return False
        if not await self._compare():
            return False
        async with self.store.transaction() as session:
            dead = await self._require_few_dead(session)
            await evaluations.succeed(session, self.evaluation.id, self.config, dead)
        return True

    async def _require_few_dead(self, session: AsyncSession) -> dict[str, int]:
        """How many answers and comparisons are left out.

        Raises:
            TooManyDead: too many.
        """
        num_prompts = await evaluations.num_prompts(session, self.config)
        mend = "Mend the cause, then ask for the evaluation again: what is stored is kept"
        found = {}
        for kind in (Kind.ANSWER, Kind.COMPARISON):
            dead = await failed_items.dead(session, self.evaluation.id, kind)
            left_out("prompts", dead, num_prompts, LIMITS, mend)
            found[f"num_dead_{kind}s"] = len(dead)
        return found

    async def _serve(self, version: str) -> None:
        """Even where it is marked as served: a swap that failed may have left another."""
        with self.permit.undisturbed():
            await bring_to(self.store, self.settings, version)
        async with self.store.transaction() as session:
            await evaluations.require_running(session, self.evaluation.id)
            await replicas.require_all_on(session, version)
            await versions.set_serving(session, version)

    async def _answers_of(self, version: str) -> bool:
        missing = await self._unanswered(version)
        if not await self._left(Kind.ANSWER, set(missing)):
            return True
        await self._serve(version)
        sampling = Sampling(
            temperature=self.config.temperature,
            top_p=self.config.top_p,
            max_tokens=self.config.max_tokens,
        )

        async def ask(
            messages: Sequence[Message], sampling: Sampling, key: str | None = None
        ) -> str:
            (sample,) = await generator.sample(messages, sampling, 1, key=key)
            _require_from(version, sample)
            return sample.text

        async def answer(item: Unanswered) -> None:
            prompt_id, messages = item
            text, reason = None, None
            key = request_key("answer", self.evaluation.id, version, prompt_id)
            try:
                text = await servers.asked(GENERATOR, ask(messages, sampling, key))
            except (InvalidInput, UpstreamRejected) as error:
                reason = error.message

            async def write(session: AsyncSession) -> None:
                await evaluations.add_answer(
                    session, version, prompt_id, self.config, answer=text, reason=reason
                )
                await evaluations.note_progress(session, self.evaluation.id)

            await stored(self.store, write)

        small = sampling.model_copy(update={"max_tokens": 1})
        servers = Servers({GENERATOR: lambda: ask(QUESTION, small)})
        async with generators(self.store, self.settings) as generator:
            await self._work_through(Kind.ANSWER, missing, answer, servers)
        return not await self._left(Kind.ANSWER, set(await self._unanswered(version)))

    async def _work_through(
        self,
        kind: Kind,
        items: dict[str, ItemT],
        work: Callable[[ItemT], Awaitable[None]],
        servers: Servers,
    ) -> None:
        source = Listed(self.store, self.evaluation.id, kind, work, LIMITS.max_attempts)
        await source.fill(items)
        await work_through(source, servers, self.permit, limit=MAX_IN_FLIGHT, seconds=WORK_SECONDS)

    async def _left(self, kind: Kind, missing: set[str]) -> set[str]:
        """Which of the missing ones are not dead."""
        async with self.store.transaction() as session:
            dead = await failed_items.dead(session, self.evaluation.id, kind)
        return missing - {item.item for item in dead}

    async def _unanswered(self, version: str) -> dict[str, Unanswered]:
        async with self.store.transaction() as session:
            found = await evaluations.unanswered(session, version, self.config)
        return {f"prompt {item[0]}, answered by {version}": item for item in found}

    async def _compare(self) -> bool:
        missing = await self._uncompared()
        if not await self._left(Kind.COMPARISON, set(missing)):
            return True
        if self.settings.evaluation_judge_url is None:
            await self._serve(await self._judge_version())

        async def compare(item: Uncompared) -> None:
            request = judge.compare(
                item.messages,
                item.first,
                item.second,
                mode=self.config.mode,
                max_tokens=self.config.judge_max_tokens,
                key=request_key("compare", self.evaluation.id, item.prompt_id, item.first),
            )
            written = await servers.asked(JUDGE, request)

            async def write(session: AsyncSession) -> None:
                await evaluations.add_comparison(session, self.evaluation.id, item, written)
                await evaluations.note_progress(session, self.evaluation.id)

            await stored(self.store, write)

        url = self.settings.evaluation_judge_url or self.settings.judge_url
        servers = Servers({JUDGE: lambda: probe_comparing(judge, self.config.mode)})
        async with JudgeClient(url, self.key) as judge:
            await self._work_through(Kind.COMPARISON, missing, compare, servers)
        return not await self._left(Kind.COMPARISON, set(await self._uncompared()))

    async def _uncompared(self) -> dict[str, Uncompared]:
        async with self.store.transaction() as session:
            found = await evaluations.uncompared(session, self.evaluation, self.config)
        return {
            f"prompt {item.prompt_id}, compared with {'A' if item.a_first else 'B'} first": item
            for item in found
        }

    async def _judge_version(self) -> str:
        """The version that judges where the generators' own engine does."""
        if self.config.judge_version is not None:
            return self.config.judge_version
        async with self.store.transaction() as session:
            a = await versions.get(session, self.evaluation.version_a_id)
            b = await versions.get(session, self.evaluation.version_b_id)
        return max(a, b, key=lambda version: version.created_at).id


def _require_from(version: str, sample: Sample) -> None:
    """
    Raises:
        UpstreamUnavailable: another version answered; its text must not be stored as this one's.
    """
    if sample.weight_version != version:
        raise UpstreamUnavailable(
            f"{sample.weight_version} answered where {version} was asked; the next try brings "
            "the replicas to it again"
        )
