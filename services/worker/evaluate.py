"""Head to head of two versions: each answers, then a judge compares, in both orders.

One task at a time works on an evaluation (an advisory lock), and while it is running no
iteration is: the generators serve one version after the other. Answers and comparisons
are stored as they come, and what is stored is never asked for again.
"""

from dataclasses import dataclass
from uuid import UUID

from celery import Celery

from rewardloop.clients.generator import GeneratorClient
from rewardloop.clients.judge import JudgeClient
from rewardloop.clients.server import request_key
from rewardloop.config import Evaluation as EvaluationConfig
from rewardloop.config import Sampling, Settings
from rewardloop.errors import InvalidInput, UpstreamRejected, UpstreamUnavailable, recordable
from rewardloop.queue import relay
from rewardloop.records import Message, Sample
from rewardloop.store import Store, evaluations, outbox, versions
from rewardloop.store.evaluations import Uncompared
from rewardloop.store.models import Evaluation
from services.worker.phase import work_through
from services.worker.swap import bring_to

MAX_IN_FLIGHT = 64


def lock_name(evaluation_id: UUID) -> str:
    return f"evaluate:{evaluation_id}"


async def run(store: Store, app: Celery, settings: Settings, evaluation_id: UUID) -> None:
    """Work on the evaluation until it has its result or time is up."""
    async with store.advisory_lock(lock_name(evaluation_id)) as held:
        if not held:
            return
        async with store.transaction() as session:
            if not await evaluations.try_start(session, evaluation_id):
                return
            evaluation = await evaluations.get(session, evaluation_id)
        try:
            done = await Evaluating(store, settings, evaluation).work()
        except Exception as error:
            async with store.transaction() as session:
                await evaluations.note_failure(session, evaluation_id, recordable(error))
            raise
        if not done:
            async with store.transaction() as session:
                outbox.add(session, outbox.EVALUATE, evaluation_id)
    await relay(store, app)


@dataclass
class Evaluating:
    store: Store
    settings: Settings
    evaluation: Evaluation

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
            await evaluations.succeed(session, self.evaluation.id, self.config)
        return True

    async def _serve(self, version: str) -> None:
        """Even where it is marked as served: a swap that failed may have left another."""
        await bring_to(self.store, self.settings, version)
        async with self.store.transaction() as session:
            await evaluations.require_running(session, self.evaluation.id)
            await versions.set_serving(session, version)

    async def _answers_of(self, version: str) -> bool:
        missing = await self._unanswered(version)
        if not missing:
            return True
        await self._serve(version)
        sampling = Sampling(
            temperature=self.config.temperature,
            top_p=self.config.top_p,
            max_tokens=self.config.max_tokens,
        )

        async def answer(item: tuple[int, tuple[Message, ...]]) -> None:
            prompt_id, messages = item
            text, reason = None, None
            try:
                key = request_key("answer", self.evaluation.id, version, prompt_id)
                (sample,) = await generator.sample(messages, sampling, 1, key=key)
                _require_from(version, sample)
                text = sample.text
            except (InvalidInput, UpstreamRejected) as error:
                reason = error.message
            async with self.store.transaction() as session:
                await evaluations.add_answer(
                    session, version, prompt_id, self.config, answer=text, reason=reason
                )
                await evaluations.note_progress(session, self.evaluation.id)

        async with GeneratorClient(self.settings.generator_urls, self.key) as generator:
            await work_through(missing, answer, limit=MAX_IN_FLIGHT)
        return not await self._unanswered(version)

    async def _unanswered(self, version: str) -> list[tuple[int, tuple[Message, ...]]]:
        async with self.store.transaction() as session:
            return await evaluations.unanswered(session, version, self.config)

    async def _compare(self) -> bool:
        missing = await self._uncompared()
        if not missing:
            return True
        if self.settings.evaluation_judge_url is None:
            await self._serve(await self._judge_version())

        async def compare(item: Uncompared) -> None:
            written = await judge.compare(
                item.messages,
                item.first,
                item.second,
                mode=self.config.mode,
                max_tokens=self.config.judge_max_tokens,
                key=request_key("compare", self.evaluation.id, item.prompt_id, item.first),
            )
            async with self.store.transaction() as session:
                await evaluations.add_comparison(session, self.evaluation.id, item, written)
                await evaluations.note_progress(session, self.evaluation.id)

        url = self.settings.evaluation_judge_url or self.settings.judge_url
        async with JudgeClient(url, self.key) as judge:
            await work_through(missing, compare, limit=MAX_IN_FLIGHT)
        return not await self._uncompared()

    async def _uncompared(self) -> list[Uncompared]:
        async with self.store.transaction() as session:
            return await evaluations.uncompared(session, self.evaluation, self.config)

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
