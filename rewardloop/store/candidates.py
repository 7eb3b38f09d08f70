"""What the prompt model wrote: new prompts, and rejected ones with their reasons."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.records import PromptRecord
from rewardloop.store import iterations, prompts
from rewardloop.store.models import CandidatePrompt, Iteration, IterationPrompt, Prompt
from rewardloop.texts import storable


@dataclass(frozen=True, slots=True)
class Candidate:
    """One written prompt; without a reason it is accepted."""

    attempt: int
    text: str
    reason: str | None
    detail: str | None


async def add(session: AsyncSession, iteration: Iteration, candidates: Sequence[Candidate]) -> None:
    """Store candidates; the accepted ones become prompts of the iteration's own dataset."""
    dataset = dataset_of(iteration)
    accepted = [
        PromptRecord(
            messages=({"role": "user", "content": storable(c.text)},),
            reference=None,
            source=f"self_instruct:{iteration.run_id}:{iteration.index}:{c.attempt}",
        )
        for c in candidates
        if c.reason is None
    ]
    await prompts.add(session, dataset, accepted)
    ids = iter(await prompts.ids_of(session, dataset, accepted))
    rows = [
        {
            "iteration_id": iteration.id,
            "attempt": c.attempt,
            "text": storable(c.text),
            "prompt_id": next(ids) if c.reason is None else None,
            "reason": c.reason,
            "detail": None if c.detail is None else storable(c.detail),
        }
        for c in candidates
    ]
    await session.execute(insert(CandidatePrompt).values(rows).on_conflict_do_nothing())


def dataset_of(iteration: Iteration) -> str:
    """Where the iteration's own prompts are kept."""
    return f"run-{iteration.run_id.hex[:12]}-i{iteration.index}"


async def accepted_texts(session: AsyncSession, run_id: UUID) -> list[str]:
    """Every new prompt of the run so far, in the order of writing."""
    found = await session.scalars(
        select(CandidatePrompt.text)
        .join(Iteration, Iteration.id == CandidatePrompt.iteration_id)
        .where(Iteration.run_id == run_id, CandidatePrompt.prompt_id.is_not(None))
        .order_by(Iteration.index, CandidatePrompt.attempt)
    )
    return list(found)


async def progress(session: AsyncSession, iteration_id: UUID) -> dict[str, Any]:
    """How many were written, accepted, and rejected by reason."""
    rows = await session.execute(
        select(CandidatePrompt.reason, func.count())
        .where(CandidatePrompt.iteration_id == iteration_id)
        .group_by(CandidatePrompt.reason)
    )
    by_reason: dict[str | None, int] = dict(rows.all())
    num_accepted = by_reason.pop(None, 0)
    return {
        "num_written": num_accepted + sum(by_reason.values()),
        "num_accepted": num_accepted,
        "rejected": dict(sorted((str(k), v) for k, v in by_reason.items())),
    }


async def finish(session: AsyncSession, iteration: Iteration) -> dict[str, Any]:
    """Give the accepted prompts to the iteration and note the counts in its report."""
    accepted = (
        select(CandidatePrompt.iteration_id, CandidatePrompt.prompt_id)
        .where(CandidatePrompt.iteration_id == iteration.id, CandidatePrompt.prompt_id.is_not(None))
        .distinct()
    )
    await session.execute(
        insert(IterationPrompt)
        .from_select(["iteration_id", "prompt_id"], accepted)
        .on_conflict_do_nothing()
    )
    found = await progress(session, iteration.id)
    await iterations.add_to_report(session, iteration.id, "prompts", found)
    return found


async def human_shots(
    session: AsyncSession, dataset: str, without: Select[str], max_words: int
) -> list[str]:
    """Prompts that may serve as shots: those of one turn whose question is not in `without`.

    Long ones crowd the context, and would make the model write what is too long.
    """
    found = await session.scalars(
        select(Prompt.messages)
        .where(Prompt.dataset == dataset, Prompt.question_sha256.not_in(without))
        .order_by(Prompt.id)
    )
    texts = [messages[0]["content"] for messages in found if len(messages) == 1]
    return [text for text in texts if len(text.split()) <= max_words]
