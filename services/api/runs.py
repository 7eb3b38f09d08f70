"""`/v1/runs`: create and list runs, ask them for iterations, list their pairs."""

from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Header, Query
from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from rewardloop.config import RunConfig, parse_run_config
from rewardloop.config.frozen import StrictNumbers
from rewardloop.store import contamination, pairs, runs
from rewardloop.store.models import Run
from services.api.context import Ctx

router = APIRouter(tags=["runs"])
PACKAGES = ("fastapi", "celery", "sqlalchemy")


class RunView(BaseModel):
    id: UUID
    name: str
    config: dict[str, Any]
    config_sha256: str
    base_version: str
    created_at: datetime
    notes: list[str] = []
    """What is worth knowing of iterations that were queued just now; never stored."""


class AsRunConfig:
    """Shows a plain mapping as a RunConfig in OpenAPI. `parse_run_config` reads it, whose
    errors name keys as a file spells them."""

    def __get_pydantic_json_schema__(
        self, _: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(RunConfig.__pydantic_core_schema__)


class IterationsRequest(StrictNumbers):
    model_config = ConfigDict(extra="forbid")
    count: int = Field(default=1, ge=1, le=100)


class IterationRef(BaseModel):
    id: UUID
    index: int


class IterationsCreated(BaseModel):
    run_id: UUID
    iterations: list[IterationRef]
    notes: list[str] = []
    """Such as how many prompts are left out because the run is measured by them."""


class Pair(BaseModel):
    pair_id: int
    iteration: int
    prompt_id: int
    prompt: list[dict[str, str]]
    chosen_response_id: int
    rejected_response_id: int
    chosen: str
    rejected: str
    chosen_score: float
    rejected_score: float
    margin: float


class PairPage(BaseModel):
    items: list[Pair]
    next_after: int | None
    """Pass as `after` to get the next page; null on the last one."""


def _view(run: Run, notes: Sequence[str] = ()) -> RunView:
    return RunView(
        id=run.id,
        name=run.name,
        config=run.config,
        config_sha256=run.config_sha256,
        base_version=run.base_version_id,
        created_at=run.created_at,
        notes=list(notes),
    )


@router.post("/runs", status_code=201)
async def create_run(
    ctx: Ctx,
    config: Annotated[dict[str, Any], AsRunConfig(), Body()],
    iterations: Annotated[int, Query(ge=0, le=100)] = 0,
) -> RunView:
    """Create a run from a RunConfig; keys that are left out take the paper's values.

    With `iterations` it queues so many at once; if they are refused, there is no run.
    """
    parsed = parse_run_config(config)
    software = {name: version(name) for name in PACKAGES}
    async with ctx.store.transaction() as session:
        run = await runs.create(session, parsed, software)
        added = await runs.add_iterations(session, run.id, iterations) if iterations else []
        await session.refresh(run)
        view = _view(run, contamination.told(added))
    await ctx.relay()
    return view


@router.get("/runs")
async def list_runs(
    ctx: Ctx, limit: Annotated[int, Query(ge=1, le=1000)] = 50
) -> dict[str, list[RunView]]:
    async with ctx.store.transaction() as session:
        return {"items": [_view(run) for run in await runs.list_newest(session, limit)]}


@router.get("/runs/{run_id}")
async def get_run(ctx: Ctx, run_id: UUID) -> RunView:
    async with ctx.store.transaction() as session:
        return _view(await runs.get(session, run_id))


@router.post("/runs/{run_id}/iterations", status_code=201)
async def start_iterations(
    ctx: Ctx,
    run_id: UUID,
    request: IterationsRequest,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> IterationsCreated:
    """Queue `count` more iterations; the same Idempotency-Key returns the same ones."""
    asked = {"run_id": str(run_id), **request.model_dump()}
    async with ctx.store.transaction() as session:
        if idempotency_key:
            known = await runs.remembered(session, idempotency_key, asked)
            if known is not None:
                return IterationsCreated.model_validate(known)
        added = await runs.add_iterations(session, run_id, request.count)
        created = IterationsCreated(
            run_id=run_id,
            iterations=[IterationRef(id=i.id, index=i.index) for i in added],
            notes=contamination.told(added),
        )
        if idempotency_key:
            runs.remember(session, idempotency_key, asked, created.model_dump(mode="json"))
    await ctx.relay()
    return created


@router.get("/runs/{run_id}/pairs")
async def list_pairs(
    ctx: Ctx,
    run_id: UUID,
    iteration: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
    after: Annotated[int, Query(ge=0, le=2**63 - 1)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> PairPage:
    """Preference pairs in the order of their ids."""
    async with ctx.store.transaction() as session:
        await runs.get(session, run_id)
        rows = await pairs.page(session, run_id, iteration=iteration, after=after, limit=limit)
    items = [Pair.model_validate(row) for row in rows]
    return PairPage(items=items, next_after=items[-1].pair_id if len(items) == limit else None)
