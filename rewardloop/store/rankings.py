"""Imports of human-ranked responses.

A prompt has one ranking in a dataset. Importing again adds the responses whose place in it can
be told, and never changes the order of those that are there. A run that split the dataset
before keeps the responses that it took (`ranked_splits.response_ids`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.method.ranking_merge import merge
from rewardloop.records import MAX_RANKED_RESPONSES, RankedPrompt, RankedText
from rewardloop.store import prompts
from rewardloop.store.models import RankedResponse
from rewardloop.texts import storable


@dataclass(frozen=True, slots=True)
class RankingsAdded:
    """What became of the rankings of one import."""

    prompts: prompts.Added
    num_new: int
    """Prompts that had no ranking before."""
    num_extended: int
    """Prompts whose ranking got more responses."""
    num_responses_added: int
    """To the rankings that were known."""
    left_out: dict[str, int]
    """Responses that could not join a known ranking, by `ranking_merge.NotMerged`."""


@dataclass(slots=True)
class _Ranking:
    """A prompt's ranking, as it is stored and as it is to be."""

    stored: list[tuple[int, RankedText]] = field(default_factory=list)
    """Best first, with ids."""
    merged: tuple[RankedText, ...] = ()
    num_added: int = 0


async def add(session: AsyncSession, dataset: str, ranked: Sequence[RankedPrompt]) -> RankingsAdded:
    """Add ranked prompts to a dataset; importing the same ones twice changes nothing."""
    records = [item.prompt for item in ranked]
    added = await prompts.add(session, dataset, records)
    ids = await prompts.ids_of(session, dataset, records)
    rankings = await _stored(session, ids)
    left_out: Counter[str] = Counter()
    for prompt_id, item in zip(ids, ranked, strict=True):
        left_out.update(_take(rankings[prompt_id], item))
    await _write(session, {i: r for i, r in rankings.items() if r.num_added})
    extended = [r for r in rankings.values() if r.stored and r.num_added]
    return RankingsAdded(
        prompts=added,
        num_new=sum(not r.stored and r.num_added > 0 for r in rankings.values()),
        num_extended=len(extended),
        num_responses_added=sum(r.num_added for r in extended),
        left_out=dict(left_out),
    )


async def _stored(session: AsyncSession, prompt_ids: Sequence[int]) -> dict[int, _Ranking]:
    rankings = {prompt_id: _Ranking() for prompt_id in prompt_ids}
    rows = await session.execute(
        select(
            RankedResponse.prompt_id,
            RankedResponse.id,
            RankedResponse.text,
            RankedResponse.rank,
            RankedResponse.imitate,
        )
        .where(RankedResponse.prompt_id.in_(rankings))
        .order_by(RankedResponse.prompt_id, RankedResponse.position)
    )
    for prompt_id, response_id, text, rank, imitate in rows:
        rankings[prompt_id].stored.append((response_id, RankedText(text, rank, imitate)))
    for ranking in rankings.values():
        ranking.merged = tuple(response for _, response in ranking.stored)
    return rankings


def _take(ranking: _Ranking, item: RankedPrompt) -> dict[str, int]:
    """Returns what was left out, by reason."""
    new = tuple(
        replace(r, text=storable(r.text)) for r in sorted(item.responses, key=lambda r: r.rank)
    )
    if not ranking.merged:
        ranking.merged, ranking.num_added = new, len(new)
        return {}
    found = merge(ranking.merged, new)
    ranking.merged = found.responses
    ranking.num_added += found.num_new
    return {reason.value: num for reason, num in found.left_out.items()}


async def _write(session: AsyncSession, rankings: dict[int, _Ranking]) -> None:
    moved: list[dict[str, Any]] = []
    new: list[dict[str, Any]] = []
    for prompt_id, ranking in rankings.items():
        ids: dict[str, list[int]] = {}
        for response_id, response in ranking.stored:
            ids.setdefault(response.text, []).append(response_id)
        for position, response in enumerate(ranking.merged):
            place = {"position": position, "rank": response.rank}
            if known := ids.get(response.text):
                moved.append({"id": known.pop(0), **place})
            else:
                row = {"text": response.text, "imitate": response.imitate, **place}
                new.append({"prompt_id": prompt_id, **row})
    if moved:
        await _make_room(session, list(rankings))
        await session.execute(update(RankedResponse), moved)
    for start in range(0, len(new), 1000):
        await session.execute(insert(RankedResponse).values(new[start : start + 1000]))


async def _make_room(session: AsyncSession, prompt_ids: Sequence[int]) -> None:
    """Positions are unique within a prompt at any moment, so all of them move out of the way."""
    await session.execute(
        update(RankedResponse)
        .where(RankedResponse.prompt_id.in_(prompt_ids))
        .values(position=RankedResponse.position + MAX_RANKED_RESPONSES)
        .execution_options(synchronize_session=False)
    )
