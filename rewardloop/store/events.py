"""What happened, told to people."""

from typing import Any
from uuid import UUID

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
