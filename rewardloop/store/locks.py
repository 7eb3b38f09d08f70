"""Names of the advisory locks under which work is done, and who looks at them in SQL.

The task or the controller that works holds its lock for as long, on a connection of its own
(`Store.advisory_lock`), so a lock that is free says that nobody works.
"""

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession


def advancing(iteration_id: UUID) -> str:
    """Held by the controller while it takes an iteration's steps, swaps among them."""
    return f"advance:{iteration_id}"


def writing_prompts(iteration_id: UUID) -> str:
    return f"prompts:{iteration_id}"


def assessing(iteration_id: UUID) -> str:
    return f"assess:{iteration_id}"


def evaluating(evaluation_id: UUID) -> str:
    return f"evaluate:{evaluation_id}"


async def take(session: AsyncSession, name: str) -> bool:
    """Take the lock until the transaction ends; returns False if somebody works under it."""
    taken = await session.scalar(
        text("SELECT pg_try_advisory_xact_lock(hashtext(:name))"), {"name": f"rewardloop:{name}"}
    )
    return bool(taken)
