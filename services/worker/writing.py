"""Writes what many prompts of one roll-out bring, together: one transaction a tick.

Owns the order of a prompt's writes. Invariants:

- a call of the writer returns when what it was given is durable, so a response's id is known
  before its judgements are asked for, and a prompt is done only after its judgements are stored;
- a prompt whose data cannot be stored fails alone: a tick that fails is written again, each
  prompt by itself;
- a database that is away for a moment is waited for: what waits here is nowhere else;
- this task's own writes to its leases never wait for each other in two orders, so there is no
  deadlock: they take turns under `turn`.

What waits for a tick when a process dies is asked for again, under the same request keys.
Knows no servers and no attempts.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.errors import UpstreamUnavailable
from rewardloop.records import Sample, WrittenJudgement
from rewardloop.store import Store, answers, iterations, rollouts
from rewardloop.store.answers import Judged, Sampled, Stored
from rewardloop.store.rollouts import LeasedPrompt
from services.worker.durable import stored

logger = logging.getLogger("rewardloop.worker")

TICK_SECONDS = 0.03
"""So long is gathered what is written together: little beside the seconds of an answer."""
MAX_ENTRIES = 512
"""In one transaction, so that none holds the event loop up for long."""

MANY = 8
"""Prompts that hear at once that they are written."""


@dataclass(eq=False)
class Entry:
    """What one prompt brings at once, and who waits for it."""

    prompt: LeasedPrompt
    written: asyncio.Future[Any]
    sampled: Sampled | None = None
    judged: Judged | None = None
    finishes: bool = False


@dataclass
class Writer:
    """One roll-out task's. Bound to its event loop; `working` runs it."""

    store: Store
    iteration_id: UUID
    sampling: dict[str, Any]
    num_judgements: int
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while leases of this task's are written to."""

    def __post_init__(self) -> None:
        self._waiting: list[Entry] = []
        self._called = asyncio.Event()
        self._is_over = False

    async def samples(
        self, prompt: LeasedPrompt, samples: Sequence[tuple[int, Sample]]
    ) -> Stored | None:
        """Store samples under their indices; returns what is stored there, or None where the
        lease is lost."""
        found: Stored | None = await self._write(prompt, sampled=Sampled(prompt, samples))
        return found

    async def judgements(
        self,
        prompt: LeasedPrompt,
        response_id: int,
        judgements: Sequence[tuple[int, WrittenJudgement]],
    ) -> None:
        await self._write(prompt, judged=Judged(response_id, judgements))

    async def finish(self, prompt: LeasedPrompt) -> bool:
        """Mark the prompt done; returns False if the lease was lost."""
        return bool(await self._write(prompt, finishes=True))

    async def _write(self, prompt: LeasedPrompt, **what: Any) -> Any:
        """
        Raises:
            UpstreamUnavailable: Postgres cannot be reached.
        """
        entry = Entry(prompt, asyncio.get_running_loop().create_future(), **what)
        self._waiting.append(entry)
        self._called.set()
        return await entry.written

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Write in ticks during the block, and at its end what was still waiting: an answer that
        was paid for is kept, although nobody waits for it any more."""
        ticking = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            self._is_over = True
            self._called.set()
            await ticking

    async def _tick(self) -> None:
        while self._waiting or not self._is_over:
            await self._called.wait()
            self._called.clear()
            if not self._is_over:
                await asyncio.sleep(TICK_SECONDS)
            await self._write_all()

    async def _write_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MAX_ENTRIES], self._waiting[MAX_ENTRIES:]
            await self._settle(batch)

    async def _settle(self, batch: Sequence[Entry]) -> None:
        """Write the entries together, or where that fails by themselves, prompt by prompt."""
        try:
            found = await self._store(batch)
        except UpstreamUnavailable as error:
            _fail(batch, error)
        except Exception as error:
            of_prompts = _by_prompt(batch)
            if len(of_prompts) == 1:
                _fail(batch, error)
                return
            logger.warning("what %d prompts brought is written one by one: %s", len(batch), error)
            for of_prompt in of_prompts:
                await self._settle(of_prompt)
        else:
            await _tell(batch, found)

    async def _store(self, batch: Sequence[Entry]) -> list[Any]:
        """What each entry's caller is told."""
        async with self.turn:
            return await stored(self.store, lambda session: self._write_batch(session, batch))

    async def _write_batch(self, session: AsyncSession, batch: Sequence[Entry]) -> list[Any]:
        leases = [entry.prompt for entry in batch if entry.judged is None]
        held = await answers.hold(session, self.iteration_id, leases)
        found = await self._add(session, batch, held)
        done = {entry.prompt.prompt_id for entry in batch if entry.finishes} & held
        await rollouts.finish(session, self.iteration_id, done)
        if done:
            await iterations.note_progress(session, self.iteration_id)
        return [
            entry.prompt.prompt_id in done if entry.finishes else found.get(entry.prompt.prompt_id)
            for entry in batch
        ]

    async def _add(
        self, session: AsyncSession, batch: Sequence[Entry], held: set[int]
    ) -> dict[int, Stored]:
        """Store answers and judgements; returns the responses by prompt."""
        sampled = [entry.sampled for entry in batch if entry.sampled is not None]
        judged = [entry.judged for entry in batch if entry.judged is not None]
        await answers.add_judgements(session, self.iteration_id, judged)
        return await answers.add_responses(
            session,
            self.iteration_id,
            [each for each in sampled if each.prompt.prompt_id in held],
            self.sampling,
            self.num_judgements,
        )


async def _tell(batch: Sequence[Entry], found: Sequence[Any]) -> None:
    """A few at a time: each prompt that hears sends its next requests at once, and the event loop
    does nothing else until all who have heard have done so."""
    for number, (entry, value) in enumerate(zip(batch, found, strict=True), start=1):
        if not entry.written.done():
            entry.written.set_result(value)
        if number % MANY == 0:
            await asyncio.sleep(0)


def _by_prompt(batch: Sequence[Entry]) -> list[list[Entry]]:
    found: defaultdict[int, list[Entry]] = defaultdict(list)
    for entry in batch:
        found[entry.prompt.prompt_id].append(entry)
    return list(found.values())


def _fail(batch: Sequence[Entry], error: Exception) -> None:
    for entry in batch:
        if not entry.written.done():
            entry.written.set_exception(error)
            entry.written.exception()  # whoever waited may be gone
