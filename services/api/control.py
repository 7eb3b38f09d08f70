"""`POST .../pause`, `/resume`, `/cancel`, `/retry`: what may be asked of work that is under way.

Asking for the same thing again changes nothing and is answered alike. What contradicts is
answered with 409, which says what to ask instead.
"""

from uuid import UUID

from fastapi import APIRouter

from rewardloop.lifecycle import Ask
from rewardloop.store import control
from services.api.context import Context, Ctx
from services.api.evaluations import EvaluationView, view_of
from services.api.iterations import IterationView, view

router = APIRouter()
_ITERATIONS, _EVALUATIONS = "iterations", "evaluations"


@router.post("/iterations/{iteration_id}/pause", tags=[_ITERATIONS])
async def pause_iteration(ctx: Ctx, iteration_id: UUID) -> IterationView:
    """Let what is in flight finish, take nothing new, then give the engines back."""
    return await _asked(ctx, iteration_id, Ask.PAUSE)


@router.post("/iterations/{iteration_id}/resume", tags=[_ITERATIONS])
async def resume_iteration(ctx: Ctx, iteration_id: UUID) -> IterationView:
    """Go on after a pause, when it is its turn."""
    return await _asked(ctx, iteration_id, Ask.RESUME)


@router.post("/iterations/{iteration_id}/cancel", tags=[_ITERATIONS])
async def cancel_iteration(ctx: Ctx, iteration_id: UUID) -> IterationView:
    """Stop within seconds; what is stored stays."""
    return await _asked(ctx, iteration_id, Ask.CANCEL)


@router.post("/iterations/{iteration_id}/retry", tags=[_ITERATIONS])
async def retry_iteration(ctx: Ctx, iteration_id: UUID) -> IterationView:
    """Go on from what is stored after a failure or a cancellation, when it is its turn."""
    return await _asked(ctx, iteration_id, Ask.RETRY)


@router.post("/evaluations/{evaluation_id}/cancel", tags=[_EVALUATIONS])
async def cancel_evaluation(ctx: Ctx, evaluation_id: UUID) -> EvaluationView:
    """Stop within seconds; answers and comparisons stay."""
    return await _asked_evaluation(ctx, evaluation_id, Ask.CANCEL)


@router.post("/evaluations/{evaluation_id}/retry", tags=[_EVALUATIONS])
async def retry_evaluation(ctx: Ctx, evaluation_id: UUID) -> EvaluationView:
    """Go on from what is stored after a failure or a cancellation."""
    return await _asked_evaluation(ctx, evaluation_id, Ask.RETRY)


async def _asked(ctx: Context, iteration_id: UUID, what: Ask) -> IterationView:
    async with ctx.store.transaction() as session:
        answer = await view(ctx, session, await control.ask(session, iteration_id, what))
    await ctx.relay()
    return answer


async def _asked_evaluation(ctx: Context, evaluation_id: UUID, what: Ask) -> EvaluationView:
    async with ctx.store.transaction() as session:
        answer = view_of(await control.ask_evaluation(session, evaluation_id, what))
    await ctx.relay()
    return answer
