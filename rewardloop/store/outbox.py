"""Messages to send, written in the transaction that calls for them.

Owns the names under which tasks are sent.
"""

from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.store.models import OutboxMessage

ROLLOUT = "rewardloop.rollout"
ADVANCE = "rewardloop.advance"
PROMPTS = "rewardloop.prompts"
ASSESS = "rewardloop.assess"
EVALUATE = "rewardloop.evaluate"


def add(session: AsyncSession, task: str, subject_id: UUID, *, times: int = 1) -> None:
    """`subject_id` is the iteration's or the evaluation's that the task is about."""
    session.add_all(OutboxMessage(task=task, subject_id=subject_id) for _ in range(times))


async def take(session: AsyncSession, limit: int = 500) -> list[tuple[str, UUID]]:
    """Remove up to `limit` of the oldest messages and return (task, subject id) of each."""
    oldest = (
        select(OutboxMessage.id)
        .order_by(OutboxMessage.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte()  # runs once; as a plain subquery Postgres may run it again for each row
    )
    taken = await session.execute(
        delete(OutboxMessage)
        .where(OutboxMessage.id.in_(select(oldest.c.id)))
        .returning(OutboxMessage.task, OutboxMessage.subject_id)
    )
    return [(row.task, row.subject_id) for row in taken]
