"""Prompt datasets.

A conversation stands once in a dataset. An import may give a known prompt the reference that
it lacked, and never replaces one. Imports into one dataset take turns.
"""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.errors import InvalidInput, NotFound
from rewardloop.records import Message, PromptRecord
from rewardloop.store.models import Prompt
from rewardloop.texts import canonical, folded

_ROWS_PER_STATEMENT = 1000
"""Postgres takes at most 65,535 parameters in one statement."""

_Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Added:
    """What became of the prompts of one import."""

    num_new: int
    num_known: int
    """In the dataset already, or repeated within the import."""
    num_references_added: int
    """Known prompts that had no reference, and got one."""
    num_references_kept: int
    """Prompts that came with another reference than the one that is known, which stays."""


async def add(session: AsyncSession, dataset: str, prompts: Sequence[PromptRecord]) -> Added:
    """Add what is new: prompts, and references of prompts that have none.

    Two conversations are the same if their turns are equal but for Unicode's composed or
    decomposed form and blanks around a turn. The one that came first stays as it is.
    """
    await _take_turns(session, dataset)
    rows, num_differing = _distinct(dataset, prompts)
    num_new = num_filled = 0
    for start in range(0, len(rows), _ROWS_PER_STATEMENT):
        chunk = rows[start : start + _ROWS_PER_STATEMENT]
        known = await _known(session, dataset, [row["messages_sha256"] for row in chunk])
        new = [row for row in chunk if row["messages_sha256"] not in known]
        if new:
            await session.execute(insert(Prompt).values(new))
        num_new += len(new)
        filled, differing = await _fill_references(session, chunk, known)
        num_filled += filled
        num_differing += differing
    return Added(num_new, len(prompts) - num_new, num_filled, num_differing)


async def _take_turns(session: AsyncSession, dataset: str) -> None:
    """Until the transaction ends, nobody else adds to the dataset."""
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"dataset:{dataset}"))))


def _distinct(dataset: str, prompts: Sequence[PromptRecord]) -> tuple[list[_Row], int]:
    """A row a conversation, with the first reference that it has, and how many others it had."""
    rows: dict[str, _Row] = {}
    num_differing = 0
    for prompt in prompts:
        row = _row(dataset, prompt)
        first = rows.setdefault(row["messages_sha256"], row)
        if first["reference"] is None:
            first["reference"] = row["reference"]
        num_differing += _differ(first["reference"], row["reference"])
    return list(rows.values()), num_differing


def _differ(known: str | None, other: str | None) -> bool:
    return known is not None and other is not None and canonical(known) != canonical(other)


async def _known(
    session: AsyncSession, dataset: str, digests: Sequence[str]
) -> dict[str, tuple[int, str | None]]:
    """Id and reference of these conversations, as far as the dataset holds them."""
    found = await session.execute(
        select(Prompt.messages_sha256, Prompt.id, Prompt.reference).where(
            Prompt.dataset == dataset, Prompt.messages_sha256.in_(digests)
        )
    )
    return {digest: (prompt_id, reference) for digest, prompt_id, reference in found}


async def _fill_references(
    session: AsyncSession, rows: Sequence[_Row], known: dict[str, tuple[int, str | None]]
) -> tuple[int, int]:
    """How many known prompts got a reference, and how many keep one that differs."""
    found = [(*known[r["messages_sha256"]], r["reference"]) for r in rows if _is_in(r, known)]
    filled = [
        {"id": prompt_id, "reference": given}
        for prompt_id, stored, given in found
        if stored is None and given is not None
    ]
    if filled:
        await session.execute(update(Prompt), filled)
    return len(filled), sum(_differ(stored, given) for _, stored, given in found)


def _is_in(row: _Row, known: Collection[str]) -> bool:
    return row["messages_sha256"] in known


def _row(dataset: str, prompt: PromptRecord) -> _Row:
    return {
        "dataset": dataset,
        "messages": [dict(message) for message in prompt.messages],
        "messages_sha256": conversation_digest(prompt.messages),
        "question_sha256": question_digest(prompt.messages),
        "reference": prompt.reference,
        "source": prompt.source,
    }


def conversation_digest(messages: Sequence[Message]) -> str:
    turns = [{**message, "content": canonical(message["content"])} for message in messages]
    return _sha256(json.dumps(turns, sort_keys=True, ensure_ascii=False))


def question_digest(messages: Sequence[Message]) -> str:
    """Of the last turn alone, so that a prompt overlaps with an evaluation prompt whatever
    system turn or history stands before either."""
    return _sha256(folded(messages[-1]["content"]))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


async def ids_of(session: AsyncSession, dataset: str, prompts: Sequence[PromptRecord]) -> list[int]:
    """The stored ids of these prompts, in their order; each must be in the dataset."""
    digests = [conversation_digest(prompt.messages) for prompt in prompts]
    found: dict[str, tuple[int, str | None]] = {}
    for start in range(0, len(digests), _ROWS_PER_STATEMENT):
        found |= await _known(session, dataset, digests[start : start + _ROWS_PER_STATEMENT])
    return [found[digest][0] for digest in digests]


async def by_question(
    session: AsyncSession, dataset: str, ids: Sequence[int]
) -> dict[str, list[int]]:
    """These prompts of the dataset by what they ask (`question_sha256`), in the ids' order."""
    rows = await session.execute(
        select(Prompt.id, Prompt.question_sha256).where(Prompt.dataset == dataset)
    )
    questions = dict(rows.all())
    found: dict[str, list[int]] = {}
    for prompt_id in ids:
        found.setdefault(questions[prompt_id], []).append(prompt_id)
    return found


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
    session: AsyncSession,
    dataset: str,
    start: int,
    count: int,
    *,
    without: Select[str] | None = None,
) -> list[int]:
    """Ids of `count` prompts from position `start`, going round at the dataset's end.

    Prompts whose `question_sha256` is in `without` are passed over.

    Raises:
        NotFound: the dataset is empty.
        InvalidInput: every prompt of the dataset is passed over.
    """
    query = select(Prompt.id).where(Prompt.dataset == dataset).order_by(Prompt.id)
    if without is not None:
        query = query.where(Prompt.question_sha256.not_in(without))
    ids = list(await session.scalars(query))
    if not ids:
        raise await _none_left(session, dataset)
    return [ids[(start + offset) % len(ids)] for offset in range(min(count, len(ids)))]


async def _none_left(session: AsyncSession, dataset: str) -> NotFound | InvalidInput:
    num = await session.scalar(
        select(func.count()).select_from(Prompt).where(Prompt.dataset == dataset)
    )
    if not num:
        return NotFound(
            f"the prompt dataset {dataset!r} is empty; fill it with "
            f"`rewardloop import FILE --dataset {dataset}`"
        )
    return InvalidInput(
        f"every one of the {num} prompts of the dataset {dataset!r} is an evaluation, validation "
        "or held-out prompt too, so none is left to train on; name another prompts.dataset, or "
        "set prompts.allow_evaluation_prompts to true to train on evaluation and validation prompts"
    )


async def datasets(session: AsyncSession) -> dict[str, int]:
    """Number of prompts in each dataset."""
    rows = await session.execute(
        select(Prompt.dataset, func.count()).group_by(Prompt.dataset).order_by(Prompt.dataset)
    )
    return dict(rows.all())
