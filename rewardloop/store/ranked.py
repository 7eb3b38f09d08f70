"""Human-ranked responses, and who judged them.

A run's split decides once which ranked prompts it learns from and which it only measures
its judges by; nothing of the held-out part is ever trained on, IFT included.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, select, true, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.config import Bootstrap
from rewardloop.errors import InvalidInput
from rewardloop.method.assessment import assessed
from rewardloop.method.eft import Judged, JudgedResponse
from rewardloop.records import (
    JudgementMode,
    Message,
    Purpose,
    UnscoredReason,
    WrittenJudgement,
)
from rewardloop.store.ift_share import best_answer, kept_from_ift, left_to_ift
from rewardloop.store.models import (
    Assessment,
    Prompt,
    RankedJudgement,
    RankedResponse,
    RankedSplit,
)
from rewardloop.store.prompts import by_question
from rewardloop.texts import storable

MIN_PROMPTS = 4
"""Ranked prompts below which a split into learning and measuring makes no sense."""


@dataclass(frozen=True, slots=True)
class Unjudged:
    """A ranked response that an assessment still wants judgements of."""

    ranked_response_id: int
    messages: tuple[Message, ...]
    text: str
    missing: tuple[int, ...]
    """Judge indices that are not settled yet."""


async def split(
    session: AsyncSession,
    run_id: UUID,
    config: Bootstrap,
    seed: int,
    *,
    without: Select[str] | None = None,
) -> None:
    """Hold out a part of the dataset's ranked prompts for this run: at least one, never all.
    The others are judged for EFT, but for those that are left to IFT alone. Prompts that ask
    one question are on one side, or the run would be measured by what it learns.

    Prompts whose `question_sha256` is in `without` are in neither part. The responses that the
    prompts have now are the run's; later imports add none to it.

    Raises:
        InvalidInput: there are too few ranked prompts.
    """
    responses = await _responses(session, config.dataset, without)
    ids = list(responses)
    asked = await by_question(session, config.dataset, ids)
    if len(asked) < MIN_PROMPTS:
        raise InvalidInput(
            f"the dataset {config.dataset!r} has {len(asked)} prompts with human-ranked responses"
            f"{' that are no evaluation prompts' if without is not None else ''} (those that "
            "differ in letter case, blanks or earlier turns alone count once), "
            f"and a bootstrap needs at least {MIN_PROMPTS}; fill it with "
            f"`rewardloop import-ranked FILE --dataset {config.dataset}`"
        )
    wanted = round(len(asked) * config.eft.held_out_fraction)
    num_held_out = min(max(1, wanted), len(asked) - (1 if config.share_rankings else 2))
    drawn = random.Random(seed).sample(list(asked), num_held_out)
    held_out = {i for question in drawn for i in asked[question]}
    left = [i for i in ids if i not in held_out]
    for_ift = await left_to_ift(session, config, left, seed, without=without)
    session.add_all(
        RankedSplit(run_id=run_id, prompt_id=i, held_out=i in held_out, response_ids=responses[i])
        for i in ids
        if i not in for_ift
    )


async def _responses(
    session: AsyncSession, dataset: str, without: Select[str] | None
) -> dict[int, list[int]]:
    """The ids of the responses to each ranked prompt of the dataset, by prompt id."""
    query = (
        select(RankedResponse.prompt_id, RankedResponse.id)
        .join(Prompt, Prompt.id == RankedResponse.prompt_id)
        .where(Prompt.dataset == dataset)
        .order_by(RankedResponse.prompt_id, RankedResponse.position)
    )
    if without is not None:
        query = query.where(Prompt.question_sha256.not_in(without))
    found: dict[int, list[int]] = {}
    for prompt_id, response_id in await session.execute(query):
        found.setdefault(prompt_id, []).append(response_id)
    return found


async def ift_examples(
    session: AsyncSession,
    run_id: UUID,
    config: Bootstrap,
    *,
    without: Select[str] | None = None,
) -> list[tuple[int, str]]:
    """(prompt id, best human answer) of every prompt of the dataset that is not held out, and,
    unless rankings are shared, not judged for EFT.

    The best answer is the response that humans ranked best, and where nobody ranked any, or
    the best one is not to be imitated, the prompt's reference. Prompts whose `question_sha256`
    is in `without` give none.
    """
    kept_away = await kept_from_ift(session, run_id, config)
    answer = best_answer()
    rows = await session.execute(
        select(Prompt.id, answer)
        .where(
            Prompt.dataset == config.dataset,
            answer.is_not(None),
            Prompt.messages_sha256.not_in(kept_away),
            true() if without is None else Prompt.question_sha256.not_in(without),
        )
        .order_by(Prompt.id)
        .limit(config.max_ift_examples)
    )
    return [(prompt_id, best) for prompt_id, best in rows if best is not None]


async def held_out_digests(session: AsyncSession, run_id: UUID) -> list[str]:
    """`messages_sha256` of the prompts that the run only measures its judges by.

    Not their ids: the same conversation has another id in another dataset. None where the
    run has no human rankings.
    """
    found = await session.scalars(
        select(Prompt.messages_sha256)
        .join(RankedSplit, RankedSplit.prompt_id == Prompt.id)
        .where(RankedSplit.run_id == run_id, RankedSplit.held_out)
    )
    return list(found)


async def held_out_texts(session: AsyncSession, run_id: UUID) -> list[str]:
    rows = await session.scalars(
        select(Prompt.messages)
        .join(RankedSplit, RankedSplit.prompt_id == Prompt.id)
        .where(RankedSplit.run_id == run_id, RankedSplit.held_out)
    )
    return [messages[-1]["content"] for messages in rows]


async def ranks_and_lengths(
    session: AsyncSession, run_id: UUID
) -> list[tuple[list[int], list[int]]]:
    """(ranks, lengths in characters) of the responses to each of the run's ranked prompts,
    those that it trains on included."""
    rows = await session.execute(
        select(
            func.array_agg(RankedResponse.rank),
            func.array_agg(func.length(RankedResponse.text)),
        )
        .join(RankedSplit, RankedSplit.prompt_id == RankedResponse.prompt_id)
        .where(RankedSplit.run_id == run_id, RankedResponse.id == RankedSplit.response_ids.any_())
        .group_by(RankedResponse.prompt_id)
        .order_by(RankedResponse.prompt_id)
    )
    return [(list(ranks), list(lengths)) for ranks, lengths in rows]


async def open_assessments(
    session: AsyncSession,
    iteration_id: UUID,
    version: str,
    wanted: Iterable[tuple[Purpose, JudgementMode]],
) -> None:
    """Ask for the version's judgements; twice changes nothing."""
    for purpose, mode in wanted:
        await session.execute(
            insert(Assessment)
            .values(iteration_id=iteration_id, version_id=version, purpose=purpose, mode=mode)
            .on_conflict_do_nothing()
        )


async def unsettled(session: AsyncSession, iteration_id: UUID) -> list[Assessment]:
    """The iteration's assessments that lack judgements, oldest first."""
    found = await session.scalars(
        select(Assessment)
        .where(Assessment.iteration_id == iteration_id, Assessment.metrics.is_(None))
        .order_by(Assessment.id)
    )
    return list(found)


async def unjudged(
    session: AsyncSession, run_id: UUID, assessment: Assessment, num_judgements: int
) -> list[Unjudged]:
    """What the assessment still wants, prompt by prompt."""
    settled = (
        select(
            RankedJudgement.ranked_response_id,
            func.array_agg(RankedJudgement.judge_index).label("indices"),
        )
        .where(RankedJudgement.assessment_id == assessment.id)
        .group_by(RankedJudgement.ranked_response_id)
        .subquery()
    )
    rows = await session.execute(
        select(RankedResponse.id, Prompt.messages, RankedResponse.text, settled.c.indices)
        .join(Prompt, Prompt.id == RankedResponse.prompt_id)
        .join(RankedSplit, RankedSplit.prompt_id == Prompt.id)
        .outerjoin(settled, settled.c.ranked_response_id == RankedResponse.id)
        .where(
            RankedSplit.run_id == run_id,
            RankedResponse.id == RankedSplit.response_ids.any_(),
            RankedSplit.held_out == (assessment.purpose == Purpose.HEALTH),
        )
        .order_by(RankedResponse.prompt_id, RankedResponse.position)
    )
    wanted = set(range(num_judgements))
    return [
        Unjudged(response_id, tuple(messages), answer, tuple(sorted(wanted - set(indices or ()))))
        for response_id, messages, answer, indices in rows
        if wanted - set(indices or ())
    ]


async def add_judgements(
    session: AsyncSession,
    assessment_id: int,
    item: Unjudged,
    written: Sequence[WrittenJudgement],
) -> None:
    """Store judgements under the item's missing indices; one that is there stays."""
    await session.execute(
        insert(RankedJudgement)
        .values(
            [
                {
                    "assessment_id": assessment_id,
                    "ranked_response_id": item.ranked_response_id,
                    "judge_index": index,
                    "raw_text": storable(judgement.raw_text),
                    "score": judgement.verdict.score,
                    "reason": judgement.verdict.reason,
                    "rubric_version": judgement.rubric_version,
                    "judge_version": judgement.judge_version,
                    "nonce": judgement.nonce,
                    "unscored_before": list(judgement.unscored_before),
                    "distribution": judgement.distribution,
                }
                for index, judgement in zip(item.missing, written, strict=True)
            ]
        )
        .on_conflict_do_nothing()
    )


async def num_judged(session: AsyncSession, assessment_id: int) -> int:
    """How many responses have a judgement."""
    responses = func.count(RankedJudgement.ranked_response_id.distinct())
    found = select(responses).where(RankedJudgement.assessment_id == assessment_id)
    return await session.scalar(found) or 0


async def settle(session: AsyncSession, assessment: Assessment) -> dict[str, Any]:
    """Compute and store the agreement of a complete assessment with the humans."""
    metrics = assessed(await judged_by_prompt(session, assessment.id))
    await session.execute(
        update(Assessment).where(Assessment.id == assessment.id).values(metrics=metrics)
    )
    return metrics


async def judged_by_prompt(
    session: AsyncSession, assessment_id: int
) -> dict[int, list[JudgedResponse]]:
    """The assessment's judgements by prompt and response, best human rank first."""
    rows = await session.execute(
        select(
            RankedResponse.prompt_id,
            RankedResponse.id,
            RankedResponse.rank,
            func.length(RankedResponse.text),
            RankedJudgement.id,
            RankedJudgement.score,
            RankedJudgement.reason,
            1 + func.cardinality(RankedJudgement.unscored_before),
        )
        .join(RankedJudgement, RankedJudgement.ranked_response_id == RankedResponse.id)
        .where(RankedJudgement.assessment_id == assessment_id)
        .order_by(RankedResponse.prompt_id, RankedResponse.position, RankedJudgement.judge_index)
    )
    ranks: dict[tuple[int, int], tuple[int, int]] = {}
    judged: dict[tuple[int, int], list[Judged]] = {}
    for prompt_id, response_id, rank, length, judgement_id, score, reason, num_asked in rows:
        ranks[prompt_id, response_id] = rank, length
        judged.setdefault((prompt_id, response_id), []).append(
            Judged(judgement_id, score, UnscoredReason(reason) if reason else None, num_asked)
        )
    by_prompt: dict[int, list[JudgedResponse]] = {}
    for (prompt_id, response_id), found in judged.items():
        rank, length = ranks[prompt_id, response_id]
        by_prompt.setdefault(prompt_id, []).append(JudgedResponse(rank, tuple(found), length))
    return by_prompt


async def assessments_of(session: AsyncSession, iteration_id: UUID) -> list[Assessment]:
    found = await session.scalars(
        select(Assessment).where(Assessment.iteration_id == iteration_id).order_by(Assessment.id)
    )
    return list(found)


async def health_of(
    session: AsyncSession, version: str, mode: JudgementMode
) -> dict[str, Any] | None:
    """The version's latest settled agreement with held-out human rankings, if there is any."""
    return await session.scalar(
        select(Assessment.metrics)
        .where(
            Assessment.version_id == version,
            Assessment.purpose == Purpose.HEALTH,
            Assessment.mode == mode,
            Assessment.metrics.is_not(None),
        )
        .order_by(Assessment.id.desc())
        .limit(1)
    )


async def has_split(session: AsyncSession, run_id: UUID) -> bool:
    found = await session.scalar(
        select(RankedSplit.prompt_id).where(RankedSplit.run_id == run_id).limit(1)
    )
    return found is not None
