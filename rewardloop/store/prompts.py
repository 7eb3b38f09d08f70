"""Prompt datasets."""

import hashlib
import json
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.errors import NotFound
from rewardloop.records import PromptRecord
from rewardloop.store.models import Prompt

_ROWS_PER_INSERT = 1000
"""Postgres takes at most 65,535 parameters in one statement."""


async def add(session: AsyncSession, dataset: str, prompts: Sequence[PromptRecord]) -> int:
    """Add prompts to a dataset and return how many were new.

    The same conversation is stored once in a dataset, however often it is imported.
    """
    num_new = 0
    for start in range(0, len(prompts), _ROWS_PER_INSERT):
        chunk = prompts[start : start + _ROWS_PER_INSERT]
        inserted = await session.scalars(
            insert(Prompt)
            .values([_row(dataset, prompt) for prompt in chunk])
            .on_conflict_do_nothing()
            .returning(Prompt.id)
        )
        num_new += len(inserted.all())
    return num_new


def _row(dataset: str, prompt: PromptRecord) -> dict[str, object]:
    messages = [dict(message) for message in prompt.messages]
    canonical = json.dumps(messages, sort_keys=True, ensure_ascii=False)
    return {
        "dataset": dataset,
        "messages": messages,
        "messages_sha256": hashlib.sha256(canonical.encode()).hexdigest(),
        "reference": prompt.reference,
        "source": prompt.source,
    }


async def ids_of(session: AsyncSession, dataset: str, prompts: Sequence[PromptRecord]) -> list[int]:
    """The stored ids of these prompts, in their order; each must be in the dataset."""
    digests = [str(_row(dataset, prompt)["messages_sha256"]) for prompt in prompts]
    found: dict[str, int] = {}
    for start in range(0, len(digests), _ROWS_PER_INSERT):
        rows = await session.execute(
            select(Prompt.messages_sha256, Prompt.id).where(
                Prompt.dataset == dataset,
                Prompt.messages_sha256.in_(digests[start : start + _ROWS_PER_INSERT]),
            )
        )
        found |= dict(rows.all())
    return [found[digest] for digest in digests]


async def texts(session: AsyncSession, dataset: str) -> list[str]:
    """The last user's turn of every prompt of the dataset, in order."""
    rows = await session.scalars(
        select(Prompt.messages).where(Prompt.dataset == dataset).order_by(Prompt.id)
    )
    return [messages[-1]["content"] for messages in rows]


async def conversations(session: AsyncSession, ids: Sequence[int]) -> list[list[Any]]:
    """The messages of these prompts, in the ids' order."""
    rows = await session.execute(select(Prompt.id, Prompt.messages).where(Prompt.id.in_(ids)))
    found = dict(rows.all())
    return [found[prompt_id] for prompt_id in ids]


async def take(
    session: AsyncSession, dataset: str, start: int, count: int, *, without: Collection[str] = ()
) -> list[int]:
    """Ids of `count` prompts from position `start`, going round at the dataset's end.

    Conversations whose `messages_sha256` is in `without` are passed over.

    Raises:
        NotFound: the dataset is empty.
    """
    ids = list(
        await session.scalars(
            select(Prompt.id)
            .where(Prompt.dataset == dataset, Prompt.messages_sha256.not_in(without))
            .order_by(Prompt.id)
        )
    )
    if not ids:
        raise NotFound(
            f"the prompt dataset {dataset!r} is empty; fill it with "
            f"`rewardloop import FILE --dataset {dataset}`"
        )
    return [ids[(start + offset) % len(ids)] for offset in range(min(count, len(ids)))]


async def datasets(session: AsyncSession) -> dict[str, int]:
    """Number of prompts in each dataset."""
    rows = await session.execute(
        select(Prompt.dataset, func.count()).group_by(Prompt.dataset).order_by(Prompt.dataset)
    )
    return dict(rows.all())
