"""Failed attempts at what is no prompt of a roll-out: ranked responses to judge, and answers and
comparisons of an evaluation.

The subject is the iteration or the evaluation that wants them. A dead item is left out of it.
"""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.errors import RewardloopError
from rewardloop.store import events
from rewardloop.store.models import FailedItem
from rewardloop.store.pauses import pause_after
from rewardloop.texts import storable


class Kind(StrEnum):
    RANKED_RESPONSE = "ranked_response"
    """A judgement of a ranked response, for one assessment."""
    ANSWER = "answer"
    COMPARISON = "comparison"


@dataclass(frozen=True, slots=True)
class Failing:
    """Where an item stands that has failed before."""

    num_attempts: int
    is_dead: bool
    pause_seconds: float
    """How much of its pause is left; negative once it is over."""


async def of(session: AsyncSession, subject_id: UUID, kind: Kind) -> dict[str, Failing]:
    """The subject's items that have failed, by their names."""
    rows = await session.execute(
        select(
            FailedItem.item,
            FailedItem.num_attempts,
            FailedItem.is_dead,
            func.extract("epoch", FailedItem.not_before - func.now()),
        ).where(FailedItem.subject_id == subject_id, FailedItem.kind == kind)
    )
    return {item: Failing(num, is_dead, float(pause)) for item, num, is_dead, pause in rows}


async def dead(session: AsyncSession, subject_id: UUID, kind: Kind) -> list[FailedItem]:
    """The subject's dead items, with their errors."""
    found = await session.scalars(
        select(FailedItem)
        .where(FailedItem.subject_id == subject_id, FailedItem.kind == kind, FailedItem.is_dead)
        .order_by(FailedItem.item)
    )
    return list(found)


async def note_failure(
    session: AsyncSession,
    subject_id: UUID,
    kind: Kind,
    item: str,
    error: RewardloopError,
    *,
    num_attempts: int,
    is_dead: bool,
) -> None:
    """The item's failed attempts are `num_attempts` now."""
    found = {
        "num_attempts": num_attempts,
        "is_dead": is_dead,
        "not_before": func.now() + pause_after(num_attempts),
        "last_error": storable(error.message),
        "last_error_kind": error.kind,
    }
    await session.execute(
        insert(FailedItem)
        .values(subject_id=subject_id, kind=kind, item=item, **found)
        .on_conflict_do_update(index_elements=["subject_id", "kind", "item"], set_=found)
    )
    if is_dead:
        events.record(
            session,
            f"{kind}.dead",
            subject_id=str(subject_id),
            item=item,
            error=found["last_error"],
            error_kind=error.kind,
        )


async def retry(session: AsyncSession, subject_id: UUID) -> int:
    """Forget the failures of the subject's dead items; returns how many there were."""
    gone = await session.scalars(
        delete(FailedItem)
        .where(FailedItem.subject_id == subject_id, FailedItem.is_dead)
        .returning(FailedItem.item)
    )
    return len(gone.all())
