"""Which ranked prompts are left to IFT, where IFT and EFT share none (`bootstrap.share_rankings`).

The paper's EFT prompts do not overlap its IFT prompts. What is left to IFT is no part of the
run's split, so nobody judges it; IFT learns from no prompt of the split.
"""

import random
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, Select, case, func, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.config import Bootstrap
from rewardloop.store.models import Prompt, RankedResponse, RankedSplit

_BLANKS = " \t\r\n"


async def left_to_ift(
    session: AsyncSession,
    config: Bootstrap,
    ids: Sequence[int],
    seed: int,
    *,
    without: Select[str] | None = None,
) -> set[int]:
    """Of the ranked prompts that are not held out, those that IFT alone learns from. Prompts
    whose `question_sha256` is in `without` are no IFT examples."""
    if config.share_rankings:
        return set()
    num_unranked = await _num_unranked(session, config.dataset, without)
    num = num_left_to_ift(len(ids), num_unranked, config)
    with_answer = await _with_an_answer(session, config.dataset)
    can_teach = [i for i in with_answer if i in set(ids)]
    rng = random.Random(f"left to IFT {seed}")
    return set(rng.sample(can_teach, min(num, len(can_teach))))


def best_answer() -> ColumnElement[str | None]:
    """What IFT can learn of a prompt: the best-ranked response, unless humans called that bad
    too, else the reference, unless that is one of the ranked ones; null where it has neither."""
    text = case((RankedResponse.imitate, RankedResponse.text))
    best_ranked = (
        select(text)
        .where(RankedResponse.prompt_id == Prompt.id)
        .order_by(RankedResponse.position)
        .limit(1)
        .correlate(Prompt)
        .scalar_subquery()
    )
    is_ranked = (
        select(RankedResponse.id)
        .where(
            RankedResponse.prompt_id == Prompt.id,
            func.btrim(RankedResponse.text, _BLANKS) == func.btrim(Prompt.reference, _BLANKS),
        )
        .correlate(Prompt)
        .exists()
    )
    return func.coalesce(best_ranked, case((~is_ranked, Prompt.reference)))


async def _with_an_answer(session: AsyncSession, dataset: str) -> list[int]:
    """Of the dataset's prompts, in order, those from which IFT can learn."""
    query = select(Prompt.id).where(Prompt.dataset == dataset, best_answer().is_not(None))
    return list(await session.scalars(query.order_by(Prompt.id)))


def num_left_to_ift(num_ranked: int, num_unranked: int, config: Bootstrap) -> int:
    """As many as IFT lacks beside the unranked prompts with a reference, at most half of the
    ranked ones; and one where IFT has nothing else."""
    lacks = max(0, config.max_ift_examples - num_unranked)
    return max(min(lacks, num_ranked // 2), 0 if num_unranked else 1)


async def _num_unranked(session: AsyncSession, dataset: str, without: Select[str] | None) -> int:
    """Prompts with a reference and without rankings."""
    is_ranked = select(RankedResponse.id).where(RankedResponse.prompt_id == Prompt.id).exists()
    found = await session.scalar(
        select(func.count(Prompt.id)).where(
            Prompt.dataset == dataset,
            Prompt.reference.is_not(None),
            ~is_ranked,
            true() if without is None else Prompt.question_sha256.not_in(without),
        )
    )
    return found or 0


async def kept_from_ift(session: AsyncSession, run_id: UUID, config: Bootstrap) -> list[str]:
    """`messages_sha256` of the prompts that IFT must not learn from: those that are held out,
    and, unless rankings are shared, those that are judged for EFT."""
    query = (
        select(Prompt.messages_sha256)
        .join(RankedSplit, RankedSplit.prompt_id == Prompt.id)
        .where(RankedSplit.run_id == run_id)
    )
    if config.share_rankings:
        query = query.where(RankedSplit.held_out)
    return list(await session.scalars(query))
