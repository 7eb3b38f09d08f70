"""`/v1/evaluations`: head to head of two model versions; `/v1/models/{id}/answers`."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from rewardloop.config import Evaluation as EvaluationConfig
from rewardloop.method.head_to_head import with_intervals
from rewardloop.store import evaluations, runs, versions
from rewardloop.store.models import Evaluation
from services.api.context import Ctx, Storable

router = APIRouter(tags=["evaluations"])


class EvaluationRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    version_a: Annotated[Storable, Field(min_length=1)]
    version_b: Annotated[Storable, Field(min_length=1)]
    config: EvaluationConfig = EvaluationConfig()
    run_id: UUID | None = None


class EvaluationView(BaseModel):
    id: UUID
    run_id: UUID | None
    version_a: str
    version_b: str
    config: dict[str, Any]
    state: str
    wish: str | None
    """`cancel` while it runs and was asked to stop."""
    result: dict[str, Any] | None
    error: str | None
    created_at: datetime
    finished_at: datetime | None


def view_of(evaluation: Evaluation) -> EvaluationView:
    return EvaluationView(
        id=evaluation.id,
        run_id=evaluation.run_id,
        version_a=evaluation.version_a_id,
        version_b=evaluation.version_b_id,
        config=evaluation.config,
        state=evaluation.state,
        wish=evaluation.wish,
        result=with_intervals(evaluation.result),
        error=evaluation.error,
        created_at=evaluation.created_at,
        finished_at=evaluation.finished_at,
    )


@router.post("/evaluations", status_code=201)
async def create_evaluation(ctx: Ctx, request: EvaluationRequest) -> EvaluationView:
    """Queue A against B; it begins when no iteration runs."""
    async with ctx.store.transaction() as session:
        if request.run_id is not None:
            await runs.get(session, request.run_id)
        evaluation = await evaluations.create(
            session, request.version_a, request.version_b, request.config, request.run_id
        )
        view = view_of(await evaluations.get(session, evaluation.id))
    await ctx.relay()
    return view


@router.get("/evaluations")
async def list_evaluations(
    ctx: Ctx,
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
    run_id: UUID | None = None,
) -> dict[str, list[EvaluationView]]:
    """Evaluations, newest first."""
    async with ctx.store.transaction() as session:
        return {
            "items": [view_of(e) for e in await evaluations.list_newest(session, limit, run_id)]
        }


@router.get("/evaluations/{evaluation_id}")
async def get_evaluation(ctx: Ctx, evaluation_id: UUID) -> EvaluationView:
    async with ctx.store.transaction() as session:
        return view_of(await evaluations.get(session, evaluation_id))


@router.get("/models/{version}/answers")
async def list_answers(
    ctx: Ctx, version: Storable, dataset: Storable
) -> dict[str, list[dict[str, Any]]]:
    """A version's stored answers to a dataset's prompts, as evaluations left them."""
    async with ctx.store.transaction() as session:
        await versions.get(session, version)
        return {"items": await evaluations.answers(session, version, dataset)}
