"""Preference pairs: built once from stored scores, read by the trainer and by people."""

from collections import Counter
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.config import Anchored, Consistency, Pairing
from rewardloop.method.judge_health import ScoreHealth, score_health
from rewardloop.method.pairing import PairedPrompt, consistency, label_smoothing, pair, sides
from rewardloop.records import ScoredResponse, mean_score
from rewardloop.store.models import Iteration, PreferencePairRow


async def scored(
    session: AsyncSession, run_id: UUID, index: int
) -> dict[int, list[ScoredResponse]]:
    """An iteration's responses with their scores, by prompt; those of dead prompts, which lack
    some, are left out."""
    rows = await session.execute(
        text(
            "SELECT s.prompt_id, s.response_id, s.response, r.finish_reason = 'length',"
            " (SELECT array_agg(j.score ORDER BY j.judge_index) FROM judgements j"
            "  WHERE j.response_id = s.response_id)"
            " FROM response_scores s JOIN responses r ON r.id = s.response_id"
            " JOIN iteration_prompts q ON q.iteration_id = r.iteration_id"
            "  AND q.prompt_id = r.prompt_id AND q.state <> 'dead'"
            " WHERE s.run_id = :run_id AND s.iteration = :index"
            " ORDER BY s.prompt_id, s.response_id"
        ),
        {"run_id": run_id, "index": index},
    )
    by_prompt: dict[int, list[ScoredResponse]] = {}
    for prompt_id, response_id, answer, is_cut, single in rows:
        scores = tuple(single or ())
        by_prompt.setdefault(prompt_id, []).append(
            ScoredResponse(response_id, answer, mean_score(scores), scores, is_cut)
        )
    return by_prompt


async def health(session: AsyncSession, iteration: Iteration) -> ScoreHealth:
    """How the iteration's judge spread its scores."""
    return score_health((await scored(session, iteration.run_id, iteration.index)).values())


async def preview(
    session: AsyncSession, iteration: Iteration, config: Pairing
) -> tuple[dict[int, PairedPrompt], dict[str, Any]]:
    """The pairs that a policy makes of the stored scores, and counts; writes nothing."""
    by_prompt = await scored(session, iteration.run_id, iteration.index)
    anchors: dict[int, list[ScoredResponse]] = {}
    if isinstance(config.policy, Anchored):
        anchors = await scored(session, iteration.run_id, index=1)
    paired = {
        prompt_id: pair(responses, config, anchors.get(prompt_id, ()))
        for prompt_id, responses in by_prompt.items()
    }
    return paired, _report(paired, by_prompt, config)


def _report(
    paired: dict[int, PairedPrompt], by_prompt: dict[int, list[ScoredResponse]], config: Pairing
) -> dict[str, Any]:
    pairs = [p for item in paired.values() for p in item.pairs]
    num = len(pairs)
    report: dict[str, Any] = {
        "policy": config.policy.model_dump(mode="json"),
        "num_prompts": len(paired),
        "num_pairs": num,
        "unpaired": dict(Counter(str(i.unpaired) for i in paired.values() if i.unpaired)),
        "mean_margin": sum(p.margin for p in pairs) / num if num else None,
        "mean_chosen_length": sum(len(p.chosen.text) for p in pairs) / num if num else None,
        "mean_rejected_length": sum(len(p.rejected.text) for p in pairs) / num if num else None,
        "num_without_text": sum(item.num_without_text for item in paired.values()),
        "num_cut_dropped": sum(item.num_cut_dropped for item in paired.values()),
        "num_repeated": sum(item.num_repeated for item in paired.values()),
        "num_chosen_cut": sum(p.chosen.is_cut for p in pairs),
        "num_rejected_cut": sum(p.rejected.is_cut for p in pairs),
        "label_smoothing": 0.0,
    }
    if isinstance(config.policy, Consistency):
        report["consistency"] = consistency(
            sides(by_prompt[prompt_id], config) for prompt_id, item in paired.items() if item.pairs
        )
        report["label_smoothing"] = label_smoothing(report["consistency"])
    return report


async def label_smoothing_of(session: AsyncSession, iteration: Iteration, config: Pairing) -> float:
    """What DPO's labels are softened by: of the stored scores, not of what a report says."""
    if not isinstance(config.policy, Consistency):
        return 0.0
    _, report = await preview(session, iteration, config)
    return float(report["label_smoothing"])


async def build(session: AsyncSession, iteration: Iteration, config: Pairing) -> dict[str, Any]:
    """Write the iteration's pairs and return the counts; twice changes nothing."""
    paired, report = await preview(session, iteration, config)
    rows = [
        {
            "iteration_id": iteration.id,
            "prompt_id": prompt_id,
            "chosen_response_id": pair.chosen.response_id,
            "rejected_response_id": pair.rejected.response_id,
            "chosen_score": pair.chosen.score,
            "rejected_score": pair.rejected.score,
            "weight_version": iteration.base_version_id,
            "lag": iteration.lag,
        }
        for prompt_id, item in paired.items()
        for pair in item.pairs
    ]
    if rows:
        await session.execute(insert(PreferencePairRow).on_conflict_do_nothing(), rows)
    return report


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


async def cut_answers(session: AsyncSession, iteration_id: UUID) -> set[int]:
    """Ids of the responses in the iteration's pairs that `sampling.max_tokens` cut."""
    found = await session.scalars(
        text(
            "SELECT r.id FROM preference_pairs p"
            " JOIN responses r ON r.id IN (p.chosen_response_id, p.rejected_response_id)"
            " WHERE p.iteration_id = :iteration_id AND r.finish_reason = 'length'"
        ),
        {"iteration_id": iteration_id},
    )
    return set(found)
