"""The EFT examples: which judgements of ranked responses a run learns to judge from."""

from dataclasses import asdict
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.config import Eft, Rubric
from rewardloop.method import rubric
from rewardloop.method.eft import select as selected
from rewardloop.records import JudgementMode, Purpose
from rewardloop.store import ranked
from rewardloop.store.models import (
    Assessment,
    EftExample,
    Prompt,
    RankedJudgement,
    RankedResponse,
)


async def select_kept(
    session: AsyncSession, iteration_id: UUID, config: Eft, seed: int
) -> dict[str, Any]:
    """Keep the judgements that agree with the humans as EFT examples; returns the report."""
    assessment = (
        await session.scalars(
            select(Assessment).where(
                Assessment.iteration_id == iteration_id, Assessment.purpose == Purpose.EFT
            )
        )
    ).one()
    selection = selected(await ranked.judged_by_prompt(session, assessment.id), config, seed)
    if selection.kept:
        await session.execute(
            insert(EftExample).on_conflict_do_nothing(),
            [{"iteration_id": iteration_id, "ranked_judgement_id": i} for i in selection.kept],
        )
    return asdict(selection.report)


async def examples(
    session: AsyncSession, iteration_id: UUID, asked: Rubric = "additive"
) -> list[dict[str, Any]]:
    """(judge's prompt, judgement as far as its score) of every kept judgement.

    The prompt is that of free judging by the rubric `asked`, as M1 will be asked, with the
    nonce that the judgement names, as M1 is to name its own. M1 shall learn to end at the score,
    whatever this judge went on to write.
    """
    rows = await session.execute(
        select(
            Prompt.messages, RankedResponse.text, RankedJudgement.raw_text, RankedJudgement.nonce
        )
        .join(RankedResponse, RankedResponse.prompt_id == Prompt.id)
        .join(RankedJudgement, RankedJudgement.ranked_response_id == RankedResponse.id)
        .join(EftExample, EftExample.ranked_judgement_id == RankedJudgement.id)
        .where(EftExample.iteration_id == iteration_id)
        .order_by(RankedJudgement.id)
    )
    return [
        {
            "prompt": rubric.render(
                [*messages, {"role": "assistant", "content": answer}],  # type: ignore[list-item]
                JudgementMode.FREE,
                asked,
                nonce,
            ),
            "completion": rubric.through_score(judgement, nonce),
        }
        for messages, answer, judgement, nonce in rows
    ]
