"""`/v1/iterations/{id}/dead-prompts`: what an iteration leaves out, why, and trying it again."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from rewardloop.records import Phase
from rewardloop.store import dead_prompts, failed_items, iterations, outbox
from services.api.context import Ctx

router = APIRouter(tags=["iterations"])

MAX_ID = 2**63 - 1
"""The largest that Postgres holds."""

PromptId = Annotated[int, Field(ge=0, le=MAX_ID)]


class DeadPromptView(BaseModel):
    prompt_id: int
    messages: list[dict[str, Any]]
    error: str
    error_kind: str
    """As in problem details: `upstream-failed`, `unreadable-answer`, ..."""
    num_attempts: int
    num_lost_leases: int
    """How often a task ended without a word while it worked on the prompt."""
    num_responses: int
    """Stored before it died; a retry goes on from them."""


class DeadItemView(BaseModel):
    item: str
    error: str
    error_kind: str
    num_attempts: int


class DeadPrompts(BaseModel):
    items: list[DeadPromptView]
    next_after: int | None
    ranked_responses: list[DeadItemView]
    """Those that could not be judged, with every page."""


class Retry(BaseModel):
    prompt_ids: list[PromptId] | None = Field(default=None, max_length=10_000)
    """All that are dead, where it is left out."""


class Retried(BaseModel):
    prompt_ids: list[int]
    """Which are pending again; those that were not dead are not among them."""
    num_ranked_responses: int


@router.get("/iterations/{iteration_id}/dead-prompts")
async def list_dead_prompts(
    ctx: Ctx,
    iteration_id: UUID,
    after: Annotated[int, Query(ge=0, le=MAX_ID)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> DeadPrompts:
    """The iteration's dead prompts by id, each with its last error."""
    async with ctx.store.transaction() as session:
        await iterations.get(session, iteration_id)
        found = await dead_prompts.page(session, iteration_id, after=after, limit=limit)
        kind = failed_items.Kind.RANKED_RESPONSE
        others = await failed_items.dead(session, iteration_id, kind)
    return DeadPrompts(
        items=[DeadPromptView.model_validate(item, from_attributes=True) for item in found],
        next_after=found[-1].prompt_id if len(found) == limit else None,
        ranked_responses=[
            DeadItemView(
                item=other.item,
                error=other.last_error,
                error_kind=other.last_error_kind,
                num_attempts=other.num_attempts,
            )
            for other in others
        ],
    )


@router.post("/iterations/{iteration_id}/dead-prompts/retry")
async def retry_dead_prompts(ctx: Ctx, iteration_id: UUID, asked: Retry | None = None) -> Retried:
    """Dead prompts are pending again, with no attempt counted; repeated, it changes nothing."""
    async with ctx.store.transaction() as session:
        prompt_ids = asked.prompt_ids if asked else None
        found = await dead_prompts.retry(session, iteration_id, prompt_ids)
        iteration = await iterations.get(session, iteration_id)
        task = outbox.ROLLOUT if iteration.phase == Phase.ROLLOUT else outbox.ADVANCE
        outbox.add(session, task, iteration_id)
    await ctx.relay()
    return Retried.model_validate(found, from_attributes=True)
