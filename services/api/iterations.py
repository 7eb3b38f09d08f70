"""`/v1/iterations`: state, counts, scores and training metrics."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.config import Pairing
from rewardloop.store import control, iteration_progress, iterations, pairs, runs, training
from rewardloop.store.models import Iteration
from services.api.context import Context, Ctx

router = APIRouter(tags=["iterations"])

SETTLED_AFTER = timedelta(minutes=10)
"""Tasks that were at work when an iteration failed may store what they have for so long."""
MAX_SETTLED = 1000


class Counts(BaseModel):
    prompts: int
    prompts_done: int
    prompts_rejected: int
    prompts_dead: int
    """Failed for good; they are left out and listed under `dead-prompts`."""
    responses_expected: int
    responses: int
    judgements_expected: int
    judgements: int
    judgements_scored: int
    pairs: int
    train_steps: int
    train_steps_total: int


class IterationView(BaseModel):
    id: UUID
    run_id: UUID
    run_name: str
    kind: str
    index: int
    state: str
    wish: str | None
    """`pause` or `cancel` while it runs and was asked to stop."""
    phase: str
    waits_for: str | None
    """What an iteration waits for that is queued, or trained and not swapped in."""
    base_version: str | None
    """The version that answers and judges."""
    trains_version: str | None
    """The version that the new one is trained from; null while that one is still made."""
    lag: int | None
    """How many versions `base_version` is older than `trains_version`."""
    baseline_version: str | None
    new_version: str | None
    error: str | None
    error_kind: str | None
    """As in problem details: `judge-collapsed`, `no-training-examples`, ..."""
    counts: Counts
    tokens: dict[str, int]
    tokens_per_second: float
    """Completion tokens of samples and judgements over the roll-out's seconds."""
    seconds: dict[str, float | None]
    report: dict[str, Any]
    """What phases found, by subject."""
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


async def _progress(ctx: Context, session: AsyncSession, iteration: Iteration) -> dict[str, Any]:
    """Dashboards ask every second, and counting reads every response and judgement: once an
    iteration has ended for good, it is counted no more."""
    ended = iteration.finished_at
    known_end, known = ctx.settled.get(iteration.id, (None, {}))
    if ended is None or known_end != ended:
        known = await iteration_progress.progress(session, iteration)
        if ended is not None and datetime.now(UTC) - ended > SETTLED_AFTER:
            ctx.settled[iteration.id] = ended, known
            if len(ctx.settled) > MAX_SETTLED:
                del ctx.settled[next(iter(ctx.settled))]  # the one that came first
    return known


async def view(ctx: Context, session: AsyncSession, iteration: Iteration) -> IterationView:
    run = await runs.get(session, iteration.run_id)
    return IterationView(
        id=iteration.id,
        run_id=iteration.run_id,
        run_name=run.name,
        kind=iteration.kind,
        index=iteration.index,
        state=iteration.state,
        wish=iteration.wish,
        waits_for=await control.waits_for(session, iteration),
        phase=iteration.phase,
        base_version=iteration.base_version_id,
        trains_version=iteration.trains_version_id,
        lag=iteration.lag,
        baseline_version=iteration.baseline_version_id,
        new_version=iteration.new_version_id,
        report=iteration.report,
        error=iteration.error,
        error_kind=iteration.error_kind,
        created_at=iteration.created_at,
        started_at=iteration.started_at,
        finished_at=iteration.finished_at,
        **await _progress(ctx, session, iteration),
    )


@router.get("/iterations")
async def list_iterations(
    ctx: Ctx,
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
    run_id: UUID | None = None,
) -> dict[str, list[IterationView]]:
    """Iterations, newest first."""
    async with ctx.store.transaction() as session:
        found = await iterations.list_newest(session, limit, run_id)
        return {"items": [await view(ctx, session, iteration) for iteration in found]}


@router.get("/iterations/{iteration_id}")
async def get_iteration(ctx: Ctx, iteration_id: UUID) -> IterationView:
    async with ctx.store.transaction() as session:
        return await view(ctx, session, await iterations.get(session, iteration_id))


@router.get("/iterations/{iteration_id}/scores")
async def get_scores(ctx: Ctx, iteration_id: UUID) -> dict[str, dict[str, int]]:
    """How often each score was given, and how often none and why."""
    async with ctx.store.transaction() as session:
        await iterations.get(session, iteration_id)
        return await iteration_progress.scores(session, iteration_id)


@router.get("/iterations/{iteration_id}/metrics")
async def get_metrics(ctx: Ctx, iteration_id: UUID) -> dict[str, list[dict[str, Any]]]:
    """What TRL logged, one row an optimizer step."""
    async with ctx.store.transaction() as session:
        await iterations.get(session, iteration_id)
        return {"items": await training.metrics_of(session, iteration_id)}


@router.post("/iterations/{iteration_id}/pairing")
async def preview_pairs(ctx: Ctx, iteration_id: UUID, pairing: Pairing) -> dict[str, Any]:
    """What another pair policy would make of the stored scores; writes nothing."""
    async with ctx.store.transaction() as session:
        iteration = await iterations.get(session, iteration_id)
        _, report = await pairs.preview(session, iteration, pairing)
        return report
