"""`/v1/models`: model versions, their lineage, and which one is served."""

from datetime import datetime

from fastapi import APIRouter
from pydantic import BaseModel

from rewardloop.store import versions
from services.api.context import Ctx

router = APIRouter(tags=["models"])


class VersionView(BaseModel):
    id: str
    parent: str | None
    kind: str
    serving: bool
    created_at: datetime


@router.get("/models")
async def list_models(ctx: Ctx) -> dict[str, list[VersionView]]:
    """Every published version, oldest first."""
    async with ctx.store.transaction() as session:
        serving = await versions.serving(session)
        found = await versions.list_all(session)
    views = [
        VersionView(
            id=v.id,
            parent=v.parent_id,
            kind=v.kind,
            serving=v.id == serving,
            created_at=v.created_at,
        )
        for v in found
    ]
    return {"items": views}
