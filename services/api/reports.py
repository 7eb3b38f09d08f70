"""`/v1/runs/{id}/report` and `/conformance`: a run side by side, from M0 to M_t."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter

from rewardloop.records import Scope
from rewardloop.store import reports
from services.api.access import CallerOf
from services.api.context import Ctx

router = APIRouter(tags=["reports"])


@router.get("/runs/{run_id}/report")
async def get_report(ctx: Ctx, caller: CallerOf, run_id: UUID) -> dict[str, Any]:
    """Everything that `rewardloop report` shows; the examples' texts need the scope `export`."""
    async with ctx.store.transaction() as session:
        report = await reports.of_run(session, run_id)
    if Scope.EXPORT not in caller.scopes:
        report["examples_withheld"] = True
        for iteration in report["iterations"]:
            iteration["examples"] = []
    return report


@router.get("/runs/{run_id}/conformance")
async def get_conformance(ctx: Ctx, run_id: UUID) -> dict[str, list[dict[str, Any]]]:
    """Every value of the paper beside what ran."""
    async with ctx.store.transaction() as session:
        return {"items": await reports.conformance_of(session, run_id)}
