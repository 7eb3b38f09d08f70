"""What happened, told to people."""

from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.store.models import Event, Iteration


def record(
    session: AsyncSession,
    kind: str,
    *,
    run_id: UUID | None = None,
    iteration_id: UUID | None = None,
    **payload: Any,
) -> None:
    session.add(Event(kind=kind, run_id=run_id, iteration_id=iteration_id, payload=payload))


def of_iteration(session: AsyncSession, iteration: Iteration, what: str, **payload: Any) -> None:
    """The event `iteration.<what>`, with the iteration's number in its run."""
    record(
        session,
        f"iteration.{what}",
        run_id=iteration.run_id,
        iteration_id=iteration.id,
        index=iteration.index,
        **payload,
    )
