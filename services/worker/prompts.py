"""Self-instruct: the fixed prompt model writes new prompts until an iteration has enough.

One task at a time works on an iteration (an advisory lock). Each batch is stored, rejected
prompts with their reasons, so that a task that dies loses one batch at most; of the last
batch only what was looked at until there were enough. The filter is made anew from what
is stored.
"""

import math
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from celery import Celery
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop import telemetry
from rewardloop.clients.generator import GeneratorClient
from rewardloop.clients.server import request_key
from rewardloop.config import RunConfig, SelfInstruct, Settings
from rewardloop.errors import InvalidInput, TooFewPrompts, UpstreamRejected
from rewardloop.method.self_instruct import (
    STOP,
    PromptFilter,
    Rejection,
    choose_shots,
    few_shot_prompt,
    written_prompt,
)
from rewardloop.queue import relay
from rewardloop.records import Phase
from rewardloop.store import (
    Store,
    candidates,
    contamination,
    iterations,
    locks,
    outbox,
    prompts,
    ranked,
)
from rewardloop.store.candidates import Candidate
from rewardloop.store.models import Iteration
from services.worker.attempts import Servers, work_through
from services.worker.batch import Batch
from services.worker.durable import stored
from services.worker.fleet import generators
from services.worker.permit import Permit, of_iteration, permitted
from services.worker.phase import WORK_SECONDS, failures_noted, running_in
from services.worker.probes import PROMPT_MODEL, probe_writing

BATCH_SIZE = 32
"""Prompts that are written at once; the shots of a batch know only the batches before."""
MAX_ATTEMPTS = 3
"""At one prompt; one that fails so often is stored as `failed`, as others are as `refused`."""


def lock_name(iteration_id: UUID) -> str:
    return locks.writing_prompts(iteration_id)


async def run(store: Store, app: Celery, settings: Settings, iteration_id: UUID) -> None:
    """Write prompts until the iteration has enough, attempts run out, or time is up."""
    async with store.advisory_lock(lock_name(iteration_id)) as held:
        found = await running_in(store, iteration_id, Phase.PROMPTS)
        if not held or found is None:
            return
        iteration, config = found
        assert config.prompts.self_instruct is not None
        how, done = config.prompts.self_instruct, False
        async with (
            failures_noted(store, iteration),
            permitted(of_iteration(store, iteration)) as permit,
            prompt_model(store, settings) as model,
        ):
            done = await Writing(store, model, config, how, iteration, permit).work()
        async with store.transaction() as session:
            task = outbox.ADVANCE if done or not permit.may_take_more else outbox.PROMPTS
            outbox.add(session, task, iteration_id)
    await relay(store, app)


def prompt_model(store: Store, settings: Settings) -> AbstractAsyncContextManager[GeneratorClient]:
    """The fixed prompt model: its own upstream, or the generators (which serve it now)."""
    if settings.prompt_upstream_url is None:
        return generators(store, settings)
    key = settings.prompt_upstream_key
    return GeneratorClient(
        [settings.prompt_upstream_url],
        key.get_secret_value() if key else "none",  # ours is nobody else's business
        model=settings.prompt_upstream_model,
        ours=False,
    )


@dataclass
class Writing:
    """One iteration's new prompts."""

    store: Store
    model: GeneratorClient
    config: RunConfig
    how: SelfInstruct
    iteration: Iteration
    permit: Permit

    def __post_init__(self) -> None:
        self._servers = Servers({PROMPT_MODEL: lambda: probe_writing(self.model, self.how, STOP)})

    async def work(self) -> bool:
        """Returns whether the iteration has its prompts now.

        Raises:
            TooFewPrompts: attempts ran out with fewer than `min_fraction` of the prompts.
        """
        await self._load()
        deadline = time.monotonic() + WORK_SECONDS
        wanted = self.config.prompts.num_per_iteration
        before = self.iteration.report.get("prompts_before_retry", {"num_written": 0})
        max_written = before["num_written"] + wanted * self.how.max_attempts_per_prompt
        while self.num_accepted < wanted and self.num_written < max_written:
            if time.monotonic() > deadline or not self.permit.may_take_more:
                return False
            await self._write_batch(min(BATCH_SIZE, max_written - self.num_written), wanted)
        await self._finish(wanted)
        return True

    async def _load(self) -> None:
        """The shots to choose from, and a filter that knows everything so far."""
        async with self.store.transaction() as session:
            without = contamination.questions(self.iteration.run_id, self.config)
            self.human = await candidates.human_shots(
                session, self.config.prompts.dataset, without, self.how.max_words
            )
            known = []
            for dataset in _training_datasets(self.config):
                known += await prompts.texts(session, dataset)
            self.generated = await candidates.accepted_texts(session, self.iteration.run_id)
            evaluation = await ranked.held_out_texts(session, self.iteration.run_id)
            for dataset in contamination.evaluation_datasets(self.config):
                evaluation += await prompts.texts(session, dataset)
            so_far = await candidates.progress(session, self.iteration.id)
        self.filter = PromptFilter(self.how, [*known, *self.generated], evaluation)
        self.num_written = int(so_far["num_written"])
        self.num_accepted = int(so_far["num_accepted"])

    async def _write_batch(self, size: int, wanted: int) -> None:
        batch = Batch(self._write, range(self.num_written, self.num_written + size), MAX_ATTEMPTS)
        await work_through(batch, self._servers, self.permit, limit=size, seconds=math.inf)
        if len(batch.written) < size:
            return  # a pause: what failed is not tried again now, and a batch is stored whole
        found = []
        for _, candidate in sorted(batch.written.items()):
            if self.num_accepted == wanted:
                break
            found.append(self._settled(candidate))

        async def write(session: AsyncSession) -> None:
            await iterations.require_unchanged(session, self.iteration)
            await candidates.add(session, self.iteration, found)
            await iterations.note_progress(session, self.iteration.id)

        await stored(self.store, write)
        self.num_written += len(found)

    async def _write(self, attempt: int) -> Candidate:
        """What the prompt model writes, not filtered yet."""
        seed = (self.config.seed + self.iteration.index) * 1_000_003 + attempt
        shots = choose_shots(self.human, self.generated, self.how, seed)
        key = request_key("prompt", self.iteration.id, attempt)
        try:
            completion, finish_reason = await self._servers.asked(
                PROMPT_MODEL, self.model.complete(few_shot_prompt(shots), self.how, STOP, key=key)
            )
        except (InvalidInput, UpstreamRejected) as error:  # the shots are too long, say
            return Candidate(attempt, "", "refused", error.message)
        text = written_prompt(completion)
        if finish_reason == "length":  # half a sentence, and later a shot
            cut = f"after {self.how.max_tokens} tokens"
            return Candidate(attempt, text, Rejection.TRUNCATED, cut)
        return Candidate(attempt, text, None, None)

    def _settled(self, candidate: Candidate) -> Candidate:
        """The candidate with the filter's word, unless something spoke against it before."""
        if candidate.reason is None and (rejected := self.filter.admit(candidate.text)):
            candidate = replace(candidate, reason=rejected.reason, detail=rejected.detail)
        telemetry.CANDIDATE_PROMPTS.labels(candidate.reason or "accepted").inc()
        if candidate.reason is None:
            self.generated.append(candidate.text)
            self.num_accepted += 1
        return candidate

    async def _finish(self, wanted: int) -> None:
        """Hand the prompts over or fail, in one transaction: a controller that looked in
        between would go on with too few."""
        async with self.store.transaction() as session:
            iteration = await iterations.locked(session, self.iteration)
            found = await candidates.finish(session, self.iteration)
            if found["num_accepted"] >= wanted * self.how.min_fraction:
                return
            error = self._too_few(found, wanted)
            await iterations.note_failure(session, iteration, error)
        raise error

    def _too_few(self, found: dict[str, Any], wanted: int) -> TooFewPrompts:
        told = ", ".join(f"{n} {reason}" for reason, n in found["rejected"].items())
        return TooFewPrompts(
            f"the prompt model wrote {found['num_written']} prompts, of which "
            f"{found['num_accepted']} of {wanted} wanted passed the filters (rejected: {told}); "
            "see them in candidate_prompts, use a better prompt model "
            "(REWARDLOOP_PROMPT_UPSTREAM_URL; in the file of `rewardloop up --env-file`, on the "
            "embedded stack), or loosen prompts.self_instruct"
        )


def _training_datasets(config: RunConfig) -> set[str]:
    """Where shots and IFT examples come from."""
    return {config.prompts.dataset} | ({config.bootstrap.dataset} if config.bootstrap else set())
