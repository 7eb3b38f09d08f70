"""What the store knows of prompts that are about to be imported, or were just now."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.records import PromptRecord
from rewardloop.store.models import Prompt, RankedSplit
from rewardloop.store.prompts import conversation_digest, question_digest

_PER_STATEMENT = 10_000


@dataclass(frozen=True, slots=True)
class Overlap:
    num_known: int
    """Prompts whose conversation the dataset holds."""
    others: dict[str, int]
    """Prompts whose question stands in another dataset, by its name."""
    num_held_out: int
    """Prompts whose question some run holds out to measure its judges by."""


async def overlap(session: AsyncSession, dataset: str, prompts: Sequence[PromptRecord]) -> Overlap:
    """Changes nothing. Questions are compared as in `store.contamination`."""
    num_known = num_held_out = 0
    others: Counter[str] = Counter()
    for start in range(0, len(prompts), _PER_STATEMENT):
        chunk = prompts[start : start + _PER_STATEMENT]
        questions = Counter(question_digest(prompt.messages) for prompt in chunk)
        conversations = Counter(conversation_digest(prompt.messages) for prompt in chunk)
        known = await session.scalars(
            select(Prompt.messages_sha256).where(
                Prompt.dataset == dataset, Prompt.messages_sha256.in_(conversations)
            )
        )
        num_known += sum(conversations[digest] for digest in known)
        elsewhere = await session.execute(
            select(Prompt.dataset, Prompt.question_sha256)
            .where(Prompt.dataset != dataset, Prompt.question_sha256.in_(questions))
            .distinct()
        )
        for name, digest in elsewhere:
            others[name] += questions[digest]
        held_out = await session.scalars(
            select(Prompt.question_sha256)
            .join(RankedSplit, RankedSplit.prompt_id == Prompt.id)
            .where(RankedSplit.held_out, Prompt.question_sha256.in_(questions))
            .distinct()
        )
        num_held_out += sum(questions[digest] for digest in held_out)
    return Overlap(num_known, dict(others), num_held_out)
