"""Prompts under lease, and what is sampled and judged for them.

A roll-out task owns a prompt while its lease lasts. To finish or reject it, the task
names the fencing token of the lease: one whose lease was taken back decides nothing.
The same holds for storing answers. Judgements need no token: they hang on stored
answers, and their unique keys keep the first that came.

A prompt's failures are counted at the prompt. An attempt that failed by the prompt's own fault
is one of `max_attempts`; after the last the prompt is dead (`dead_prompts`). A lease that was
lost is no such attempt (`lost_leases`). Who decides whose fault a failure is:
`services/worker/attempts.py`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.records import IterationState, Message, PromptState, Sample, WrittenJudgement
from rewardloop.store import events
from rewardloop.store.models import Iteration, IterationPrompt, Judgement, Prompt, Response
from rewardloop.texts import storable

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


@dataclass(frozen=True, slots=True)
class StoredResponse:
    response_id: int
    text: str
    missing_judgements: tuple[int, ...]
    """Judge indices that are not settled yet."""


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
    is_suspect = IterationPrompt.num_lost_leases >= SUSPECT_AFTER
    pending = (
        select(IterationPrompt.prompt_id)
        .where(
            IterationPrompt.iteration_id == iteration_id,
            IterationPrompt.state == PromptState.PENDING,
            or_(IterationPrompt.not_before.is_(None), IterationPrompt.not_before <= func.now()),
            is_suspect if suspects else ~is_suspect,
        )
        .order_by(
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


async def finish(session: AsyncSession, iteration_id: UUID, prompt: LeasedPrompt) -> bool:
    """Mark the prompt done; returns False if the lease was lost."""
    done = await session.scalar(
        update(IterationPrompt)
        .where(*held(iteration_id, prompt))
        .values(state=PromptState.DONE, **FREE)
        .returning(IterationPrompt.prompt_id)
    )
    return done is not None


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


async def add_responses(
    session: AsyncSession,
    iteration_id: UUID,
    prompt: LeasedPrompt,
    samples: Sequence[tuple[int, Sample]],
    sampling: dict[str, Any],
) -> None:
    """Store samples under their indices; one that is there already stays as it is.

    A task that lost its lease stores nothing, and none does once the iteration has stopped:
    another run's version may answer by then.
    """
    mine = select(IterationPrompt.prompt_id).where(
        *held(iteration_id, prompt), _running(iteration_id).exists()
    )
    if await session.scalar(mine.with_for_update()) is None:
        return
    await session.execute(
        insert(Response)
        .values(
            [
                {
                    "iteration_id": iteration_id,
                    "prompt_id": prompt.prompt_id,
                    "sample_index": index,
                    "text": storable(sample.text),
                    "sampling": sampling,
                    "prompt_tokens": sample.prompt_tokens,
                    "completion_tokens": sample.completion_tokens,
                    "finish_reason": sample.finish_reason,
                    "weight_version": sample.weight_version,
                }
                for index, sample in samples
            ]
        )
        .on_conflict_do_nothing()
    )


async def responses(
    session: AsyncSession, iteration_id: UUID, prompt_id: int, num_judgements: int
) -> dict[int, StoredResponse]:
    """The prompt's stored responses by sample index."""
    rows = await session.execute(
        select(
            Response.id,
            Response.sample_index,
            Response.text,
            func.array_remove(func.array_agg(Judgement.judge_index), None),
        )
        .outerjoin(Judgement, Judgement.response_id == Response.id)
        .where(Response.iteration_id == iteration_id, Response.prompt_id == prompt_id)
        .group_by(Response.id)
    )
    return {
        index: StoredResponse(
            response_id, answer, tuple(sorted(set(range(num_judgements)) - set(settled)))
        )
        for response_id, index, answer, settled in rows
    }


async def add_judgements(
    session: AsyncSession, judgements: Iterable[tuple[int, int, WrittenJudgement]]
) -> None:
    """Store (response id, judge index, judgement) rows; one that is there already stays.

    Once their iteration has stopped, nothing is stored: another run's version may judge by then.
    """
    rows = [_judgement_row(*item) for item in judgements]
    if rows and await _still_runs(session, rows[0]["response_id"]):
        await session.execute(insert(Judgement).values(rows).on_conflict_do_nothing())


async def _still_runs(session: AsyncSession, response_id: int) -> bool:
    state = await session.scalar(
        select(Iteration.state)
        .join(Response, Response.iteration_id == Iteration.id)
        .where(Response.id == response_id)
    )
    return state == IterationState.RUNNING


def _judgement_row(response_id: int, index: int, judgement: WrittenJudgement) -> dict[str, Any]:
    return {
        "response_id": response_id,
        "judge_index": index,
        "raw_text": storable(judgement.raw_text),
        "score": judgement.verdict.score,
        "reason": judgement.verdict.reason,
        "mode": judgement.mode,
        "rubric_version": judgement.rubric_version,
        "judge_version": judgement.judge_version,
        "nonce": judgement.nonce,
        "unscored_before": list(judgement.unscored_before),
        "distribution": judgement.distribution,
        "prompt_tokens": judgement.prompt_tokens,
        "completion_tokens": judgement.completion_tokens,
    }
