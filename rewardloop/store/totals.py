"""Sums over the whole database, for the API's `/metrics`."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.records import PromptState
from rewardloop.store.models import (
    Iteration,
    IterationPrompt,
    Judgement,
    PhaseSpan,
    PreferencePairRow,
    Response,
)


@dataclass(frozen=True, slots=True)
class Totals:
    samples: int
    judgements: int
    tokens: int
    """Completion tokens of samples and judgements."""
    pairs: int
    dead_prompts: int
    phase_seconds: dict[str, float]
    iterations: dict[str, int]
    """By state; one that none is in has no entry."""


async def totals(session: AsyncSession) -> Totals:
    samples, sampled = (
        await session.execute(
            select(func.count(Response.id), func.coalesce(func.sum(Response.completion_tokens), 0))
        )
    ).one()
    judgements, judged = (
        await session.execute(
            select(
                func.count(Judgement.id), func.coalesce(func.sum(Judgement.completion_tokens), 0)
            )
        )
    ).one()
    num_pairs = await session.scalar(select(func.count(PreferencePairRow.id)))
    num_dead = await session.scalar(
        select(func.count()).where(IterationPrompt.state == PromptState.DEAD)
    )
    last = func.coalesce(PhaseSpan.ended_at, func.clock_timestamp()) - PhaseSpan.started_at
    spent = func.sum(PhaseSpan.earlier_seconds + func.extract("epoch", last))
    phases = await session.execute(select(PhaseSpan.phase, spent).group_by(PhaseSpan.phase))
    states = await session.execute(select(Iteration.state, func.count()).group_by(Iteration.state))
    return Totals(
        samples=samples,
        judgements=judgements,
        tokens=int(sampled) + int(judged),
        pairs=num_pairs or 0,
        dead_prompts=num_dead or 0,
        phase_seconds={phase: float(seconds) for phase, seconds in phases},
        iterations=dict(states.all()),
    )
