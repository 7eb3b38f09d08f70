"""How far an iteration is: counts, tokens, seconds and scores, for whoever watches it."""

from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.records import Phase, PromptState, Stage
from rewardloop.store.models import (
    Iteration,
    IterationPrompt,
    Judgement,
    PhaseSpan,
    Response,
    TrainingJob,
    TrainingMetric,
)


async def progress(session: AsyncSession, iteration: Iteration) -> dict[str, Any]:
    """Counts, tokens and seconds of one iteration, as the API shows them."""
    seconds = await phase_seconds(session, iteration.id)
    tokens = await _tokens(session, iteration.id)
    rollout = seconds.get(Phase.ROLLOUT)
    return {
        "counts": await _counts(session, iteration),
        "tokens": tokens,
        "tokens_per_second": round(tokens["completion"] / rollout, 2) if rollout else 0.0,
        "seconds": {
            str(phase): seconds.get(phase)
            for phase in Phase
            if phase in seconds or phase in (Phase.PREPARE, Phase.ROLLOUT, Phase.TRAIN, Phase.SWAP)
        },
    }


async def phase_seconds(session: AsyncSession, iteration_id: UUID) -> dict[str, float]:
    """Seconds spent in each phase so far."""
    ended = func.coalesce(PhaseSpan.ended_at, func.clock_timestamp())
    last = func.extract("epoch", ended - PhaseSpan.started_at)
    rows = await session.execute(
        select(PhaseSpan.phase, PhaseSpan.earlier_seconds + last).where(
            PhaseSpan.iteration_id == iteration_id
        )
    )
    return {phase: round(float(seconds), 3) for phase, seconds in rows}


async def _counts(session: AsyncSession, iteration: Iteration) -> dict[str, int]:
    view = await session.execute(
        text(
            "SELECT prompts, responses_expected, responses, judgements_expected, judgements, pairs "
            "FROM iteration_progress WHERE run_id = :run_id AND iteration = :index"
        ),
        {"run_id": iteration.run_id, "index": iteration.index},
    )
    states = await session.execute(
        select(IterationPrompt.state, func.count())
        .where(IterationPrompt.iteration_id == iteration.id)
        .group_by(IterationPrompt.state)
    )
    by_state: dict[str, int] = dict(states.all())
    scored = await session.scalar(
        select(func.count(Judgement.score))
        .join(Response, Response.id == Judgement.response_id)
        .where(Response.iteration_id == iteration.id)
    )
    job = await session.scalar(
        select(TrainingJob).where(
            TrainingJob.iteration_id == iteration.id, TrainingJob.stage == _stage(iteration)
        )
    )
    return {
        **dict(view.mappings().one()),
        "prompts_done": by_state.get(PromptState.DONE, 0),
        "prompts_rejected": by_state.get(PromptState.REJECTED, 0),
        "prompts_dead": by_state.get(PromptState.DEAD, 0),
        "judgements_scored": scored or 0,
        "train_steps": await _last_step(session, job) if job else 0,
        "train_steps_total": (job.num_steps or 0) if job else 0,
    }


def _stage(iteration: Iteration) -> Stage:
    """The training that an observer wants to see: the one that runs or ran last."""
    return Stage.BASELINE if iteration.phase == Phase.TRAIN_BASELINE else Stage.MODEL


async def _last_step(session: AsyncSession, job: TrainingJob) -> int:
    step = await session.scalar(
        select(func.max(TrainingMetric.step)).where(
            TrainingMetric.job_id == job.id, TrainingMetric.attempt == job.num_attempts
        )
    )
    return step or 0


async def _tokens(session: AsyncSession, iteration_id: UUID) -> dict[str, int]:
    """Tokens of samples and judgements. The samples of one prompt share its prompt tokens."""
    row = await session.execute(
        text(
            "SELECT coalesce(sum(r.completion_tokens), 0)::bigint + coalesce(sum(j.completion), 0)"
            " ::bigint AS completion,"
            " coalesce(sum(r.prompt_tokens) FILTER (WHERE r.sample_index = 0), 0)::bigint"
            " + coalesce(sum(j.prompt), 0)::bigint AS prompt"
            " FROM responses r LEFT JOIN LATERAL ("
            "   SELECT sum(completion_tokens) AS completion,"
            "          max(prompt_tokens) AS prompt"
            "   FROM judgements WHERE response_id = r.id) j ON true"
            " WHERE r.iteration_id = :id"
        ),
        {"id": iteration_id},
    )
    completion, prompt = row.one()
    return {"prompt": int(prompt), "completion": int(completion)}


async def scores(session: AsyncSession, iteration_id: UUID) -> dict[str, dict[str, int]]:
    """How often each score (rounded) and each reason for none was given."""
    rows = await session.execute(
        select(func.round(Judgement.score), Judgement.reason, func.count())
        .join(Response, Response.id == Judgement.response_id)
        .where(Response.iteration_id == iteration_id)
        .group_by(func.round(Judgement.score), Judgement.reason)
    )
    histogram = {str(score): 0 for score in range(6)}
    unscored: dict[str, int] = {}
    for score, reason, count in rows:
        if reason is None:
            histogram[str(int(score))] += count
        else:
            unscored[reason] = count
    return {"scores": histogram, "unscored": unscored}
