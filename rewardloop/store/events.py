"""What happened, told to people."""

from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.store.models import Event


def record(
    session: AsyncSession,
    kind: str,
    *,
    run_id: UUID | None = None,
    iteration_id: UUID | None = None,
    **payload: Any,
) -> None:
    session.add(Event(kind=kind, run_id=run_id, iteration_id=iteration_id, payload=payload))


async def after(session: AsyncSession, last_id: int, limit: int = 500) -> list[Event]:
    """Events newer than `last_id`, oldest first."""
    found = await session.scalars(
        select(Event).where(Event.id > last_id).order_by(Event.id).limit(limit)
    )
    return list(found)
