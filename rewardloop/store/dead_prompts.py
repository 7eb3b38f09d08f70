"""Failed attempts at the prompts of a roll-out, and the prompts that died of them.

A dead prompt is left out of the iteration: what is stored for it stays, and makes no pair.
`docs/decisions/0018-failures-belong-to-prompts.md` says why.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.config import Rollout
from rewardloop.errors import Conflict, RewardloopError, TooManyDead
from rewardloop.records import IterationState, Phase, PromptState
from rewardloop.store import events, failed_items, iterations, rollouts
from rewardloop.store.models import Iteration, IterationPrompt, Prompt, Response
from rewardloop.store.pauses import pause_after
from rewardloop.store.rollouts import LeasedPrompt
from rewardloop.texts import storable


async def note_failure(
    session: AsyncSession,
    iteration_id: UUID,
    prompt: LeasedPrompt,
    error: RewardloopError,
    max_attempts: int,
    *,
    counts: bool,
) -> bool:
    """Note the prompt's error and give it back, to be tried again after a pause. If it `counts`
    as an attempt and was the last one, the prompt is dead; returns whether it is."""
    num_attempts = prompt.num_attempts + counts
    is_dead = counts and num_attempts >= max_attempts
    message = storable(error.message)
    failed = await session.scalar(
        update(IterationPrompt)
        .where(*rollouts.held(iteration_id, prompt))
        .values(
            state=PromptState.DEAD if is_dead else PromptState.PENDING,
            num_attempts=num_attempts,
            not_before=func.now() + pause_after(num_attempts),
            last_error=message,
            last_error_kind=error.kind,
            **rollouts.FREE,
        )
        .returning(IterationPrompt.prompt_id)
    )
    if failed is None or not is_dead:
        return False
    rollouts.record_death(session, iteration_id, prompt.prompt_id, message, error.kind)
    return True


@dataclass(frozen=True, slots=True)
class DeadPrompt:
    prompt_id: int
    messages: list[Any]
    error: str
    error_kind: str
    num_attempts: int
    num_lost_leases: int
    num_responses: int
    """Stored before it died; a retry goes on from them."""


async def page(
    session: AsyncSession, iteration_id: UUID, *, after: int = 0, limit: int = 1000
) -> list[DeadPrompt]:
    """The iteration's dead prompts with an id above `after`, in order."""
    num_responses = (
        select(func.count(Response.id))
        .where(
            Response.iteration_id == IterationPrompt.iteration_id,
            Response.prompt_id == IterationPrompt.prompt_id,
        )
        .scalar_subquery()
    )
    rows = await session.execute(
        select(
            IterationPrompt.prompt_id,
            Prompt.messages,
            IterationPrompt.last_error,
            IterationPrompt.last_error_kind,
            IterationPrompt.num_attempts,
            IterationPrompt.num_lost_leases,
            num_responses,
        )
        .join(Prompt, Prompt.id == IterationPrompt.prompt_id)
        .where(*_dead(iteration_id), IterationPrompt.prompt_id > after)
        .order_by(IterationPrompt.prompt_id)
        .limit(limit)
    )
    return [DeadPrompt(*row) for row in rows]


def _dead(iteration_id: UUID) -> tuple[Any, ...]:
    return (
        IterationPrompt.iteration_id == iteration_id,
        IterationPrompt.state == PromptState.DEAD,
    )


@dataclass(frozen=True, slots=True)
class Retried:
    prompt_ids: list[int]
    num_ranked_responses: int


_BEFORE_PAIRING = (Phase.PREPARE, Phase.ROLLOUT)
_JUDGING_RANKED = (Phase.SWAP_BASELINE, Phase.JUDGE_RANKED, Phase.SWAP, Phase.ASSESS)


async def retry(
    session: AsyncSession, iteration_id: UUID, prompt_ids: Sequence[int] | None = None
) -> Retried:
    """Let what is dead be tried again with no attempt counted: the iteration's prompts, or those
    of `prompt_ids` that are dead; while ranked responses are judged, those. An iteration that
    failed goes on.

    Raises:
        NotFound: there is no such iteration.
        Conflict: it has gone on without them, so nobody would work on them.
    """
    iteration = await iterations.get(session, iteration_id, lock=True)
    if iteration.phase in _BEFORE_PAIRING:
        found = Retried(await _revive(session, iteration_id, prompt_ids), 0)
    elif iteration.phase in _JUDGING_RANKED and prompt_ids is None:
        found = Retried([], await failed_items.retry(session, iteration_id))
    else:
        raise Conflict(
            f"iteration {iteration_id} is in phase {iteration.phase} and has gone on without its "
            "dead prompts; only before its pairs are made can they be tried again"
        )
    if found.prompt_ids or found.num_ranked_responses:
        events.record(
            session,
            "prompts.retried",
            run_id=iteration.run_id,
            iteration_id=iteration_id,
            **asdict(found),
        )
        if iteration.state == IterationState.FAILED:
            await iterations.go_on(session, iteration)
    return found


async def _revive(
    session: AsyncSession, iteration_id: UUID, prompt_ids: Sequence[int] | None
) -> list[int]:
    wanted = _dead(iteration_id)
    if prompt_ids is not None:
        wanted = (*wanted, IterationPrompt.prompt_id.in_(prompt_ids))
    found = await session.scalars(
        update(IterationPrompt)
        .where(*wanted)
        .values(
            state=PromptState.PENDING,
            num_attempts=0,
            num_lost_leases=0,
            not_before=None,
            last_error=None,
            last_error_kind=None,
        )
        .returning(IterationPrompt.prompt_id)
    )
    return sorted(found)


async def require_few(
    session: AsyncSession, iteration: Iteration, config: Rollout
) -> dict[str, Any] | None:
    """What a finished roll-out leaves out, for the report; None where no prompt is dead.

    Raises:
        TooManyDead: more than the config allows.
    """
    num_prompts, num_dead = await _counts(session, iteration.id)
    if not num_dead:
        return None
    max_dead = config.max_dead(num_prompts)
    worst, num_worst, example = await _most_frequent_error(session, iteration.id)
    if num_dead > max_dead:
        raise TooManyDead(
            f"{num_dead} of {num_prompts} prompts are dead: their attempts failed while the "
            f"servers answered others. rollout.max_dead_share {config.max_dead_share:g} allows "
            f"{max_dead}. The most frequent error, of {num_worst} of them, prompt {example} for "
            f"one: {worst}. See them all with `rewardloop dead {iteration.id}`, mend the cause, "
            f"then `rewardloop retry-prompts {iteration.id}`",
            num_dead=num_dead,
            num_prompts=num_prompts,
            prompt_id=example,
        )
    return {
        "num_prompts": num_prompts,
        "num_dead": num_dead,
        "max_dead": max_dead,
        "error": worst,
        "num_of_error": num_worst,
    }


async def _counts(session: AsyncSession, iteration_id: UUID) -> tuple[int, int]:
    """How many prompts there are, and how many of them are dead."""
    is_dead = IterationPrompt.state == PromptState.DEAD
    row = await session.execute(
        select(func.count(), func.count().filter(is_dead)).where(
            IterationPrompt.iteration_id == iteration_id
        )
    )
    num_prompts, num_dead = row.one()
    return num_prompts, num_dead


async def _most_frequent_error(session: AsyncSession, iteration_id: UUID) -> tuple[str, int, int]:
    """The error, how many prompts died of it, and the first of them."""
    num, first = func.count(), func.min(IterationPrompt.prompt_id)
    rows = await session.execute(
        select(IterationPrompt.last_error, num, first)
        .where(*_dead(iteration_id))
        .group_by(IterationPrompt.last_error)
        .order_by(num.desc(), first)
        .limit(1)
    )
    error, num_of_error, prompt_id = rows.one()
    return str(error), num_of_error, prompt_id
