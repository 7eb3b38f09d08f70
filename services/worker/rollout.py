"""Roll-out: sample each prompt, judge each answer, with no barrier between the two.

A task keeps `max_prompts_in_flight` prompts going on one event loop. It leases
them a few at a time, and a prompt's answers are judged while other prompts are
still being sampled. After WORK_SECONDS it takes no new prompt, lets its own finish
and sends for a successor, so that no Celery task grows old. A prompt that fails stops no
other one: `attempts` says whose failure it is, and Postgres counts it.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from celery import Celery

from rewardloop import telemetry
from rewardloop.clients.generator import GeneratorClient, Prefix
from rewardloop.clients.http import attempts
from rewardloop.clients.judge import JudgeClient
from rewardloop.clients.server import request_key
from rewardloop.config import RunConfig, Settings
from rewardloop.errors import InvalidInput, RewardloopError, UpstreamRejected, UpstreamUnavailable
from rewardloop.queue import relay
from rewardloop.records import Phase, Sample, WrittenJudgement
from rewardloop.store import Store, answers, dead_prompts, iterations, outbox, rollouts
from rewardloop.store.answers import Stored, StoredResponse
from rewardloop.store.rollouts import LeasedPrompt
from rewardloop.texts import storable
from services.worker.attempts import Servers, all_done, work_through
from services.worker.fleet import generators
from services.worker.permit import Permit, of_iteration, permitted
from services.worker.phase import WORK_SECONDS, failures_noted, running_in
from services.worker.probes import GENERATOR, JUDGE, probe_generator, probe_judge
from services.worker.writing import Writer

logger = logging.getLogger("rewardloop.worker")

LEASE_SECONDS = 60.0
RENEW_SECONDS = 15.0
RELEASE_SECONDS = 20.0


async def run(store: Store, app: Celery, settings: Settings, iteration_id: UUID) -> None:
    """Work on the iteration's pending prompts until none is left or time is up."""
    found = await running_in(store, iteration_id, Phase.ROLLOUT)
    if found is None:
        return
    iteration, config = found
    key = settings.api_key.get_secret_value()
    async with (
        failures_noted(store, iteration),
        permitted(of_iteration(store, iteration)) as permit,
        generators(store, settings, iteration.base_version_id) as generator,
        JudgeClient(settings.judge_url, key) as judge,
    ):
        await judge.ask_itself(generator)
        await Rollout(store, generator, judge, config, iteration_id, permit).run()
    async with store.transaction() as session:
        if permit.may_take_more and await rollouts.has_pending(session, iteration_id):
            outbox.add(session, outbox.ROLLOUT, iteration_id)
        elif not permit.may_take_more or await rollouts.is_complete(session, iteration_id):
            outbox.add(session, outbox.ADVANCE, iteration_id)
    await relay(store, app)


@dataclass
class Rollout:
    """One task's share of an iteration."""

    store: Store
    generator: GeneratorClient
    judge: JudgeClient
    config: RunConfig
    iteration_id: UUID
    permit: Permit = field(default_factory=Permit)

    def __post_init__(self) -> None:
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self._servers = Servers(
            {
                GENERATOR: lambda: probe_generator(self.generator, self.config.sampling),
                JUDGE: lambda: probe_judge(self.judge, self.config.judging),
            }
        )
        self._writer = Writer(
            self.store,
            self.iteration_id,
            self.config.sampling.model_dump(mode="json"),
            self.config.judging.num_judgements,
        )
        self._known: dict[int, Stored] = {}
        """What earlier leases of a prompt have stored, until it is worked on."""
        self._num_working = 0
        self._alone = False
        """Whether the one prompt that is worked on is one that may end this process."""

    async def run(self) -> None:
        """Lease and process prompts; on an error, give back what is still leased."""
        async with self.store.working(self.owner):
            await self._work()

    async def _work(self) -> None:
        keeper = asyncio.create_task(self._keep_leases())
        try:
            limit = self.config.rollout.max_prompts_in_flight
            async with self._writer.working():
                await work_through(
                    self, self._servers, self.permit, limit=limit, seconds=WORK_SECONDS
                )
        finally:
            keeper.cancel()
            await self._release()

    async def _release(self) -> None:
        """Not only once: a database that was away for a moment is why many a task ends, and a
        lease that is not given back counts against its prompt."""
        async for attempt in attempts(RELEASE_SECONDS):
            with attempt:
                async with self.store.transaction() as session:
                    await rollouts.release(session, self.iteration_id, self.owner)

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                async with self._writer.turn, self.store.transaction() as session:
                    await rollouts.renew(session, self.iteration_id, self.owner, LEASE_SECONDS)
            except UpstreamUnavailable as error:
                logger.warning("leases not renewed: %s", error.message)

    async def take(self, count: int) -> list[LeasedPrompt]:
        """Prompts of which one may end this process come one at a time, with nothing beside."""
        if self._alone:
            return []
        found = await self._lease(count)
        if not found and not self._num_working:
            found = await self._lease(1, suspects=True)
            self._alone = bool(found)
        self._num_working += len(found)
        return found

    async def _lease(self, count: int, *, suspects: bool = False) -> list[LeasedPrompt]:
        """A prompt's first lease finds nothing stored, so nothing is looked for."""
        num_judgements = self.config.judging.num_judgements
        async with self.store.transaction() as session:
            found = await rollouts.lease(
                session, self.iteration_id, self.owner, count, LEASE_SECONDS, suspects=suspects
            )
            again = [prompt.prompt_id for prompt in found if prompt.token > 1]
            self._known |= await answers.stored(session, self.iteration_id, again, num_judgements)
        return found

    async def seconds_until_due(self) -> float | None:
        async with self.store.transaction() as session:
            return await rollouts.seconds_until_due(session, self.iteration_id)

    async def work(self, prompt: LeasedPrompt) -> None:
        try:
            await self._process(prompt)
        finally:
            self._num_working -= 1
            self._alone = False

    async def failed(self, prompt: LeasedPrompt, error: RewardloopError, *, counts: bool) -> None:
        max_attempts = self.config.rollout.max_attempts
        async with self.store.transaction() as session:
            is_dead = await dead_prompts.note_failure(
                session, self.iteration_id, prompt, error, max_attempts, counts=counts
            )
            if is_dead:
                await iterations.note_progress(session, self.iteration_id)
        telemetry.FAILED_ATTEMPTS.labels("rollout", error.kind).inc()
        logger.warning(
            "prompt %d: %s%s", prompt.prompt_id, error.message, "; it is dead" if is_dead else ""
        )

    async def _process(self, prompt: LeasedPrompt) -> None:
        prefix = Prefix()
        try:
            responses = await self._sample(prompt, prefix)
        except (InvalidInput, UpstreamRejected) as error:
            async with self.store.transaction() as session:
                await rollouts.reject(session, self.iteration_id, prompt, storable(error.message))
                await iterations.note_progress(session, self.iteration_id)
            return
        if responses is not None:
            judging = (self._judge(prompt, r, prefix) for r in responses if r.missing_judgements)
            await all_done(*judging)
        if responses is None or not await self._writer.finish(prompt):
            logger.warning("lost the lease on prompt %d", prompt.prompt_id)

    async def _sample(self, prompt: LeasedPrompt, prefix: Prefix) -> list[StoredResponse] | None:
        """The prompt's responses, those that an earlier attempt stored among them; None where
        the lease was lost meanwhile."""
        sampling = self.config.sampling
        stored = self._known.pop(prompt.prompt_id, {})
        missing = sorted(set(range(sampling.num_samples)) - set(stored))
        if missing:
            use = ("sample", self.iteration_id, prompt.prompt_id, missing)
            key = request_key(*use, prompt.num_attempts)
            samples = await self._servers.asked(
                GENERATOR,
                self.generator.sample(
                    prompt.messages, sampling, len(missing), key=key, prefix=prefix
                ),
            )
            added = await self._writer.samples(prompt, list(zip(missing, samples, strict=True)))
            telemetry.SAMPLES.inc(len(samples))
            _count_tokens("sample", samples)
            if added is None:
                return None
            stored = stored | added
        return list(stored.values())

    async def _judge(self, prompt: LeasedPrompt, response: StoredResponse, prefix: Prefix) -> None:
        judging, missing = self.config.judging, response.missing_judgements
        key = request_key("judge", response.response_id, missing, prompt.num_attempts)
        written = await self._servers.asked(
            JUDGE,
            self.judge.judge(
                prompt.messages, response.text, judging, len(missing), key=key, prefix=prefix
            ),
        )
        settled = list(zip(missing, written, strict=True))
        await self._writer.judgements(prompt, response.response_id, settled)
        for judgement in written:
            telemetry.JUDGEMENTS.labels(judgement.verdict.reason or "scored").inc()
        _count_tokens("judge", written)


def _count_tokens(role: str, written: Sequence[Sample | WrittenJudgement]) -> None:
    telemetry.TOKENS.labels(role, "completion").inc(sum(w.completion_tokens for w in written))
    telemetry.TOKENS.labels(role, "prompt").inc(written[0].prompt_tokens if written else 0)
