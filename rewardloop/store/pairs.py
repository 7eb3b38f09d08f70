"""Preference pairs: built once from stored scores, read by the trainer and by people."""

from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.config import Pairing
from rewardloop.pairing import best_against_worst
from rewardloop.records import ScoredResponse
from rewardloop.store.models import Iteration, PreferencePairRow


async def build(session: AsyncSession, iteration: Iteration, config: Pairing) -> int:
    """Write the iteration's pairs and return how many; twice changes nothing."""
    rows = await session.execute(
        text(
            "SELECT prompt_id, response_id, response, score_mean FROM response_scores"
            " WHERE run_id = :run_id AND iteration = :index ORDER BY prompt_id, response_id"
        ),
        {"run_id": iteration.run_id, "index": iteration.index},
    )
    by_prompt: dict[int, list[ScoredResponse]] = {}
    for prompt_id, response_id, answer, score in rows:
        by_prompt.setdefault(prompt_id, []).append(ScoredResponse(response_id, answer, score))
    pairs = {
        prompt_id: pair
        for prompt_id, scored in by_prompt.items()
        if (pair := best_against_worst(scored, config)) is not None
    }
    if pairs:
        await session.execute(
            insert(PreferencePairRow)
            .values(
                [
                    {
                        "iteration_id": iteration.id,
                        "prompt_id": prompt_id,
                        "chosen_response_id": pair.chosen.response_id,
                        "rejected_response_id": pair.rejected.response_id,
                        "chosen_score": pair.chosen.score,
                        "rejected_score": pair.rejected.score,
                    }
                    for prompt_id, pair in pairs.items()
                ]
            )
            .on_conflict_do_nothing()
        )
    return len(pairs)


async def page(
    session: AsyncSession,
    run_id: UUID,
    *,
    iteration: int | None = None,
    after: int = 0,
    limit: int = 1000,
) -> list[dict[str, Any]]:
    """Rows of `preference_dataset` with a pair id above `after`, in order."""
    rows = await session.execute(
        text(
            "SELECT * FROM preference_dataset WHERE run_id = :run_id AND pair_id > :after"
            " AND (CAST(:iteration AS int) IS NULL OR iteration = :iteration)"
            " ORDER BY pair_id LIMIT :limit"
        ),
        {"run_id": run_id, "after": after, "iteration": iteration, "limit": limit},
    )
    return [dict(row) for row in rows.mappings()]
