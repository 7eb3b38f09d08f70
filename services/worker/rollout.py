"""Roll-out: sample each prompt, judge each answer, with no barrier between the two.

A task keeps `max_prompts_in_flight` prompts going on one event loop. It leases
them a few at a time, and a prompt's answers are judged while other prompts are
still being sampled. After WORK_SECONDS it takes no new prompt, lets its own finish
and sends for a successor, so that no Celery task grows old.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

from celery import Celery

from rewardloop import telemetry
from rewardloop.clients.generator import GeneratorClient
from rewardloop.clients.judge import JudgeClient
from rewardloop.clients.server import request_key
from rewardloop.config import RunConfig, Settings
from rewardloop.errors import InvalidInput, UpstreamRejected, UpstreamUnavailable
from rewardloop.queue import relay
from rewardloop.records import Phase, Sample, WrittenJudgement
from rewardloop.store import Store, iterations, outbox, rollouts
from rewardloop.store.rollouts import LeasedPrompt, StoredResponse
from services.worker.phase import WORK_SECONDS, failures_noted, running_in, together

logger = logging.getLogger("rewardloop.worker")

LEASE_SECONDS = 60.0
RENEW_SECONDS = 15.0


async def run(store: Store, app: Celery, settings: Settings, iteration_id: UUID) -> None:
    """Work on the iteration's pending prompts until none is left or time is up."""
    found = await running_in(store, iteration_id, Phase.ROLLOUT)
    if found is None:
        return
    iteration, config = found
    key = settings.api_key.get_secret_value()
    async with (
        failures_noted(store, iteration),
        GeneratorClient(settings.generator_urls, key) as generator,
        JudgeClient(settings.judge_url, key) as judge,
    ):
        await Rollout(store, generator, judge, config, iteration_id).work()
    async with store.transaction() as session:
        if await rollouts.has_pending(session, iteration_id):
            outbox.add(session, outbox.ROLLOUT, iteration_id)
        elif await rollouts.is_complete(session, iteration_id):
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

    def __post_init__(self) -> None:
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"

    async def work(self) -> None:
        """Lease and process prompts; on an error, give back what is still leased."""
        async with self.store.working(self.owner):
            await self._work()

    async def _work(self) -> None:
        keeper = asyncio.create_task(self._keep_leases())
        try:
            await self._process_all()
        finally:
            keeper.cancel()
            async with self.store.transaction() as session:
                await rollouts.release(session, self.iteration_id, self.owner)

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                async with self.store.transaction() as session:
                    await rollouts.renew(session, self.iteration_id, self.owner, LEASE_SECONDS)
            except UpstreamUnavailable as error:
                logger.warning("leases not renewed: %s", error.message)

    async def _process_all(self) -> None:
        deadline = time.monotonic() + WORK_SECONDS
        running: set[asyncio.Task[None]] = set()
        try:
            while True:
                if time.monotonic() < deadline:
                    free = self.config.rollout.max_prompts_in_flight - len(running)
                    for prompt in await self._lease(free):
                        running.add(asyncio.create_task(self._process(prompt)))
                if not running:
                    return
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _lease(self, count: int) -> list[LeasedPrompt]:
        async with self.store.transaction() as session:
            return await rollouts.lease(
                session, self.iteration_id, self.owner, count, LEASE_SECONDS
            )

    async def _process(self, prompt: LeasedPrompt) -> None:
        try:
            responses = await self._sample(prompt)
        except (InvalidInput, UpstreamRejected) as error:
            async with self.store.transaction() as session:
                await rollouts.reject(session, self.iteration_id, prompt, error.message)
                await iterations.note_progress(session, self.iteration_id)
            return
        await self._judge_all(prompt, responses)
        async with self.store.transaction() as session:
            if not await rollouts.finish(session, self.iteration_id, prompt):
                logger.warning("lost the lease on prompt %d", prompt.prompt_id)
            await iterations.note_progress(session, self.iteration_id)

    async def _sample(self, prompt: LeasedPrompt) -> list[StoredResponse]:
        """The prompt's responses; those that an earlier attempt stored are kept."""
        sampling = self.config.sampling
        stored = await self._stored(prompt)
        missing = sorted(set(range(sampling.num_samples)) - set(stored))
        if missing:
            key = request_key("sample", self.iteration_id, prompt.prompt_id, missing)
            samples = await self.generator.sample(prompt.messages, sampling, len(missing), key=key)
            await self._store_samples(prompt, list(zip(missing, samples, strict=True)))
            stored = await self._stored(prompt)
        return list(stored.values())

    async def _stored(self, prompt: LeasedPrompt) -> dict[int, StoredResponse]:
        async with self.store.transaction() as session:
            return await rollouts.responses(
                session, self.iteration_id, prompt.prompt_id, self.config.judging.num_judgements
            )

    async def _store_samples(
        self, prompt: LeasedPrompt, samples: Sequence[tuple[int, Sample]]
    ) -> None:
        settings = self.config.sampling.model_dump(mode="json")
        async with self.store.transaction() as session:
            await rollouts.add_responses(session, self.iteration_id, prompt, samples, settings)
        telemetry.SAMPLES.inc(len(samples))
        _count_tokens("sample", [sample for _, sample in samples])

    async def _judge_all(self, prompt: LeasedPrompt, responses: list[StoredResponse]) -> None:
        async with together() as group:
            for response in responses:
                if response.missing_judgements:
                    group.create_task(self._judge(prompt, response))

    async def _judge(self, prompt: LeasedPrompt, response: StoredResponse) -> None:
        missing = response.missing_judgements
        key = request_key("judge", response.response_id, missing)
        written = await self.judge.judge(
            prompt.messages, response.text, self.config.judging, len(missing), key=key
        )
        async with self.store.transaction() as session:
            await rollouts.add_judgements(
                session,
                (
                    (response.response_id, index, judgement)
                    for index, judgement in zip(missing, written, strict=True)
                ),
            )
        for judgement in written:
            telemetry.JUDGEMENTS.labels(judgement.verdict.reason or "scored").inc()
        _count_tokens("judge", written)


def _count_tokens(role: str, written: Sequence[Sample | WrittenJudgement]) -> None:
    telemetry.TOKENS.labels(role, "completion").inc(sum(w.completion_tokens for w in written))
    telemetry.TOKENS.labels(role, "prompt").inc(written[0].prompt_tokens if written else 0)
