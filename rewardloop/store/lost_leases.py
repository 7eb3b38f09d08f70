"""Leases whose task has ended without giving them back.

Such a lease is no attempt of its prompt: a task's end is mostly no prompt's fault. But a prompt
may end each task that takes it. So one whose leases were lost SUSPECT_AFTER times is worked on
alone, and if its lease is lost MAX_LOST_ALONE more times, it is dead.
"""

from typing import Any

from sqlalchemy import case, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.records import PromptState
from rewardloop.store.models import IterationPrompt
from rewardloop.store.rollouts import FREE, SUSPECT_AFTER, record_death
from rewardloop.store.sessions import has_no_living_owner

MAX_LOST_ALONE = 5
WORKER_LOST = "worker-lost"
"""The kind of the error of a prompt that died of lost leases."""


async def take_back_expired(session: AsyncSession) -> int:
    """Make prompts whose lease ran out pending again; returns how many."""
    return await _take_back(session, IterationPrompt.lease_expires_at < func.now())


async def take_back_orphans(session: AsyncSession) -> int:
    """Make prompts whose task no longer holds its session lock pending again; returns how many."""
    return await _take_back(session, has_no_living_owner(IterationPrompt.lease_owner))


async def _take_back(session: AsyncSession, *lost: Any) -> int:
    """End the leases that were `lost`, and count that at their prompts; returns how many."""
    num_lost = IterationPrompt.num_lost_leases + 1
    is_dead = num_lost >= SUSPECT_AFTER + MAX_LOST_ALONE
    why = (
        f"each of the {SUSPECT_AFTER + MAX_LOST_ALONE} tasks that worked on it ended without a "
        "word, at last while it worked on nothing else; see the workers' logs, and whether "
        "their memory suffices"
    )
    # A prompt whose row is being written has a task that lives: the next look sees what it left.
    key = (IterationPrompt.iteration_id, IterationPrompt.prompt_id)
    found = (
        select(*key)
        .where(IterationPrompt.state == PromptState.LEASED, *lost)
        .with_for_update(skip_locked=True)
        .cte()
    )
    taken = await session.execute(
        update(IterationPrompt)
        .where(tuple_(*key).in_(select(found)))
        .values(
            state=case((is_dead, PromptState.DEAD), else_=PromptState.PENDING),
            num_lost_leases=num_lost,
            last_error=case((is_dead, why), else_=IterationPrompt.last_error),
            last_error_kind=case((is_dead, WORKER_LOST), else_=IterationPrompt.last_error_kind),
            **FREE,
        )
        .returning(IterationPrompt.iteration_id, IterationPrompt.prompt_id, IterationPrompt.state)
    )
    rows = taken.all()
    for iteration_id, prompt_id, state in rows:
        if state == PromptState.DEAD:
            record_death(session, iteration_id, prompt_id, why, WORKER_LOST)
    return len(rows)
