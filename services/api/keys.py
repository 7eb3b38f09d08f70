"""`/v1/keys`: make, list and revoke the keys of this API."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from rewardloop.records import Scope
from rewardloop.store import api_keys
from rewardloop.store.models import ApiKey
from services.api.access import Access
from services.api.context import Ctx

router = APIRouter(tags=["keys"])

NAME = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,99}$"
"""A key's name stands in logs, events and terminals."""


class KeyRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, Field(pattern=NAME)]
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=len(Scope))]


class KeyView(BaseModel):
    id: UUID
    name: str
    scopes: list[str]
    created_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None
    """To a minute."""


class NewKey(KeyView):
    key: str
    """Shown this once; only its digest is stored."""


def _view(row: ApiKey) -> KeyView:
    return KeyView.model_validate(row, from_attributes=True)


@router.post("/keys", status_code=201)
async def create_key(ctx: Ctx, request: KeyRequest) -> NewKey:
    """Make a key. The answer is the only one that holds it."""
    async with ctx.store.transaction() as session:
        row, key = await api_keys.create(session, request.name, request.scopes)
        return NewKey(**_view(row).model_dump(), key=key)


@router.get("/keys")
async def list_keys(ctx: Ctx) -> dict[str, list[KeyView]]:
    """Every key, oldest first, revoked ones too."""
    async with ctx.store.transaction() as session:
        return {"items": [_view(row) for row in await api_keys.list_all(session)]}


@router.delete("/keys/{key_id}")
async def revoke_key(ctx: Ctx, key_id: UUID, request: Request) -> KeyView:
    """The key opens nothing any more; other API processes notice within 5 seconds."""
    async with ctx.store.transaction() as session:
        view = _view(await api_keys.revoke(session, key_id))
    access: Access = request.app.state.access
    access.forget()
    return view
