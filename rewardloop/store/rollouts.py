"""Prompts under lease.

A roll-out task owns a prompt while its lease lasts. To finish or reject it, the task
names the fencing token of the lease: one whose lease was taken back decides nothing.
The same holds for storing answers: see `answers`.

A prompt's failures are counted at the prompt. An attempt that failed by the prompt's own fault
is one of `max_attempts`; after the last the prompt is dead (`dead_prompts`). A lease that was
lost is no such attempt (`lost_leases`). Who decides whose fault a failure is:
`services/worker/attempts.py`.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ARRAY, CTE, BigInteger, Select, any_, func, literal, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.records import IterationState, Message, PromptState
from rewardloop.store import events, sessions
from rewardloop.store.models import Iteration, IterationPrompt, Prompt

SUSPECT_AFTER = 5
"""Lost leases of a prompt, after which it is leased only by a task that works on nothing else."""
FREE = {"lease_owner": None, "lease_expires_at": None}


@dataclass(frozen=True, slots=True)
class LeasedPrompt:
    """A prompt that the holder of `token` works on."""

    prompt_id: int
    messages: tuple[Message, ...]
    token: int
    num_attempts: int = 0
    """Failed ones before this."""


async def lease(
    session: AsyncSession,
    iteration_id: UUID,
    owner: str,
    count: int,
    seconds: float,
    *,
    suspects: bool = False,
) -> list[LeasedPrompt]:
    """Take up to `count` pending prompts for `seconds`: none whose pause is not over, and of
    those that may end their worker either none or, with `suspects`, nothing else.

    None of an iteration that is asked to stop. (Its row is held meanwhile, so that it does not
    pause between the look and the lease.)
    """
    working = _running(iteration_id).where(Iteration.wish.is_(None))
    if await session.scalar(working.with_for_update(read=True, key_share=True)) is None:
        return []
    pending = _next_pending(iteration_id, count, suspects=suspects)
    taken = await session.execute(
        update(IterationPrompt)
        .where(
            IterationPrompt.iteration_id == iteration_id,
            IterationPrompt.prompt_id.in_(select(pending.c.prompt_id)),
        )
        .values(
            state=PromptState.LEASED,
            lease_owner=owner,
            lease_token=IterationPrompt.lease_token + 1,
            lease_expires_at=func.now() + timedelta(seconds=seconds),
        )
        .returning(
            IterationPrompt.prompt_id, IterationPrompt.lease_token, IterationPrompt.num_attempts
        )
    )
    leases = {prompt_id: (token, num_attempts) for prompt_id, token, num_attempts in taken}
    found = await session.execute(
        select(Prompt.id, Prompt.messages).where(Prompt.id.in_(leases)).order_by(Prompt.id)
    )
    return [LeasedPrompt(i, tuple(messages), *leases[i]) for i, messages in found]  # type: ignore[arg-type]


def _next_pending(iteration_id: UUID, count: int, *, suspects: bool) -> CTE:
    """Those that `lease` takes, locked; what others hold is passed over."""
    is_suspect = IterationPrompt.num_lost_leases >= SUSPECT_AFTER
    return (
        select(IterationPrompt.prompt_id)
        .where(
            IterationPrompt.iteration_id == iteration_id,
            IterationPrompt.state == PromptState.PENDING,
            or_(IterationPrompt.not_before.is_(None), IterationPrompt.not_before <= func.now()),
            is_suspect if suspects else ~is_suspect,
        )
        .order_by(
            # Once lost, its answers are still kept where they were made. Lost again, it may be
            # what ends its workers, and goes behind.
            (IterationPrompt.num_lost_leases == 1).desc(),
            IterationPrompt.num_lost_leases,
            IterationPrompt.num_attempts.desc(),
            # Those that failed with their server come after those that nobody has tried.
            IterationPrompt.not_before.asc().nulls_first(),
            IterationPrompt.prompt_id,
        )
        .limit(count)
        .with_for_update(skip_locked=True)
        .cte()  # runs once; as a plain subquery Postgres may run it again for each row
    )


async def seconds_until_due(session: AsyncSession, iteration_id: UUID) -> float | None:
    """Until a pending prompt's pause is over; None where no prompt is pending."""
    due = func.min(func.coalesce(IterationPrompt.not_before, func.now()))
    seconds = await session.scalar(
        select(func.extract("epoch", due - func.now())).where(
            IterationPrompt.iteration_id == iteration_id,
            IterationPrompt.state == PromptState.PENDING,
        )
    )
    return None if seconds is None else float(seconds)


def held(iteration_id: UUID, prompt: LeasedPrompt) -> tuple[Any, ...]:
    """Conditions under which whoever has this lease may still decide."""
    return (
        IterationPrompt.iteration_id == iteration_id,
        IterationPrompt.prompt_id == prompt.prompt_id,
        IterationPrompt.lease_token == prompt.token,
        IterationPrompt.state == PromptState.LEASED,
    )


def _running(iteration_id: UUID) -> Select[UUID]:
    return select(Iteration.id).where(
        Iteration.id == iteration_id, Iteration.state == IterationState.RUNNING
    )


def _held_by(iteration_id: UUID, owner: str) -> tuple[Any, ...]:
    return (
        IterationPrompt.iteration_id == iteration_id,
        IterationPrompt.lease_owner == owner,
        IterationPrompt.state == PromptState.LEASED,
    )


async def renew(session: AsyncSession, iteration_id: UUID, owner: str, seconds: float) -> None:
    """Keep every lease of `owner` for another `seconds`."""
    await session.execute(
        update(IterationPrompt)
        .where(*_held_by(iteration_id, owner))
        .values(lease_expires_at=func.now() + timedelta(seconds=seconds))
    )


async def release(session: AsyncSession, iteration_id: UUID, owner: str) -> None:
    """Give every prompt that `owner` still holds back."""
    await session.execute(
        update(IterationPrompt)
        .where(*_held_by(iteration_id, owner))
        .values(state=PromptState.PENDING, **FREE)
    )


async def take_back_all(session: AsyncSession, iteration_id: UUID) -> None:
    """Nobody works on the iteration any more. A prompt whose row is in use right now is left
    to its task, which gives it back itself; to wait for it could be a deadlock."""
    leased = (
        select(IterationPrompt.prompt_id)
        .where(
            IterationPrompt.iteration_id == iteration_id,
            IterationPrompt.state == PromptState.LEASED,
        )
        .with_for_update(skip_locked=True)
        .cte()
    )
    await session.execute(
        update(IterationPrompt)
        .where(
            IterationPrompt.iteration_id == iteration_id,
            IterationPrompt.prompt_id.in_(select(leased.c.prompt_id)),
        )
        .values(state=PromptState.PENDING, **FREE)
    )


def record_death(
    session: AsyncSession, iteration_id: UUID, prompt_id: int, error: str, kind: str
) -> None:
    """For people: the prompt is left out."""
    events.record(
        session,
        "prompt.dead",
        iteration_id=iteration_id,
        prompt_id=prompt_id,
        error=error,
        error_kind=kind,
    )


async def finish(session: AsyncSession, iteration_id: UUID, prompts: Collection[int]) -> None:
    """Mark prompts done whose leases the caller holds (`answers.hold`)."""
    if prompts:
        await session.execute(
            update(IterationPrompt)
            .where(
                IterationPrompt.iteration_id == iteration_id,
                IterationPrompt.prompt_id == any_(literal(list(prompts), ARRAY(BigInteger))),
            )
            .values(state=PromptState.DONE, **FREE)
        )


async def reject(
    session: AsyncSession, iteration_id: UUID, prompt: LeasedPrompt, reason: str
) -> None:
    """Leave the prompt out of the iteration, for `reason`."""
    rejected = await session.scalar(
        update(IterationPrompt)
        .where(*held(iteration_id, prompt))
        .values(state=PromptState.REJECTED, reason=reason, **FREE)
        .returning(IterationPrompt.prompt_id)
    )
    if rejected is None:
        return
    events.record(
        session,
        "prompt.rejected",
        iteration_id=iteration_id,
        prompt_id=prompt.prompt_id,
        reason=reason,
    )


async def has_pending(session: AsyncSession, iteration_id: UUID) -> bool:
    return await _any_in(session, iteration_id, PromptState.PENDING)


async def is_complete(session: AsyncSession, iteration_id: UUID) -> bool:
    """Whether every prompt is done, rejected or dead."""
    return not await _any_in(session, iteration_id, PromptState.PENDING, PromptState.LEASED)


async def num_wanted(session: AsyncSession, num_tasks: int | Literal["auto"]) -> int:
    """How many tasks shall work, by `rollout.num_tasks`. Where nobody is there, one waits for
    whoever comes."""
    if num_tasks == "auto":
        return max(1, await sessions.num_workers(session))
    return num_tasks


async def num_working(session: AsyncSession, iteration_id: UUID) -> int:
    """How many tasks hold leases; those that ran out count until they are taken back."""
    found = await session.scalar(
        select(func.count(IterationPrompt.lease_owner.distinct())).where(
            IterationPrompt.iteration_id == iteration_id,
            IterationPrompt.state == PromptState.LEASED,
        )
    )
    return found or 0


async def _any_in(session: AsyncSession, iteration_id: UUID, *states: PromptState) -> bool:
    found = await session.scalar(
        select(IterationPrompt.prompt_id)
        .where(IterationPrompt.iteration_id == iteration_id, IterationPrompt.state.in_(states))
        .limit(1)
    )
    return found is not None
