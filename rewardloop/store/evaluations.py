"""Evaluations: two versions' answers to held-out prompts, compared in both orders."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from rewardloop.config import Evaluation as EvaluationConfig
from rewardloop.errors import Conflict, InvalidInput, NotFound, RewardloopError
from rewardloop.method.head_to_head import compared, head_to_head
from rewardloop.records import EvaluationState, Message, Preference, WrittenComparison
from rewardloop.store import engines, events, failures, outbox, prompts, versions
from rewardloop.store.models import Comparison, Evaluation, EvaluationAnswer, Prompt
from rewardloop.texts import storable


@dataclass(frozen=True, slots=True)
class Uncompared:
    """A prompt with both answers that one order of is not judged yet."""

    prompt_id: int
    messages: tuple[Message, ...]
    first: str
    second: str
    a_first: bool


async def create(
    session: AsyncSession,
    version_a: str,
    version_b: str,
    config: EvaluationConfig,
    run_id: UUID | None = None,
) -> Evaluation:
    """Queue an evaluation of A against B.

    Raises:
        NotFound: a version does not exist, or the dataset is empty.
        InvalidInput: A and B are the same.
    """
    if version_a == version_b:
        raise InvalidInput(f"{version_a!r} cannot be compared with itself; name two versions")
    for version in {version_a, version_b, config.judge_version or version_a}:
        await versions.get(session, version)
    await prompts.take(session, config.dataset, 0, 1)
    evaluation = Evaluation(
        id=uuid4(),
        run_id=run_id,
        version_a_id=version_a,
        version_b_id=version_b,
        config=config.model_dump(mode="json"),
    )
    session.add(evaluation)
    await session.flush()
    outbox.add(session, outbox.EVALUATE, evaluation.id)
    return evaluation


async def get(session: AsyncSession, evaluation_id: UUID, *, lock: bool = False) -> Evaluation:
    """
    Raises:
        NotFound: there is no such evaluation.
    """
    found = await session.get(Evaluation, evaluation_id, with_for_update=lock)
    if found is None:
        raise NotFound(f"there is no evaluation {evaluation_id}; GET /v1/evaluations lists them")
    return found


async def list_newest(
    session: AsyncSession, limit: int, run_id: UUID | None = None
) -> list[Evaluation]:
    query = select(Evaluation).order_by(Evaluation.created_at.desc(), Evaluation.id)
    if run_id is not None:
        query = query.where(Evaluation.run_id == run_id)
    return list(await session.scalars(query.limit(limit)))


async def try_start(session: AsyncSession, evaluation_id: UUID) -> bool:
    """Whether the evaluation has the engines: it has started, or starts now.

    The caller holds the lock under which it is worked on; one that was asked to stop stops.
    """
    await engines.lock(session)
    evaluation = await get(session, evaluation_id, lock=True)
    if await settle(session, evaluation_id):
        return False
    if evaluation.state == EvaluationState.RUNNING:
        return True
    if evaluation.state != EvaluationState.QUEUED or await engines.busy(session):
        return False
    evaluation.state = EvaluationState.RUNNING
    events.record(session, "evaluation.started", run_id=evaluation.run_id, id=str(evaluation.id))
    return True


async def settle(session: AsyncSession, evaluation_id: UUID) -> bool:
    """Stop it if it was asked to; returns whether it has stopped. The caller holds the lock
    under which it is worked on."""
    evaluation = await get(session, evaluation_id, lock=True)
    if evaluation.wish is None:
        return False
    await stop(session, evaluation)
    return True


async def stop(session: AsyncSession, evaluation: Evaluation) -> None:
    """Cancel it: it gives the engines back and keeps its answers and comparisons. The caller
    holds its row, and the lock under which it is worked on."""
    evaluation.state = EvaluationState.CANCELLED
    evaluation.wish = evaluation.failing_since = None
    evaluation.finished_at = datetime.now(UTC)
    events.record(session, "evaluation.cancelled", run_id=evaluation.run_id, id=str(evaluation.id))
    await session.flush()
    await engines.wake_next(session)


def go_on(session: AsyncSession, evaluation: Evaluation) -> None:
    """Queue one that failed or was cancelled; it goes on from what is stored."""
    events.record(
        session,
        "evaluation.retried",
        run_id=evaluation.run_id,
        id=str(evaluation.id),
        was=evaluation.state,
        error=evaluation.error,
    )
    evaluation.state = EvaluationState.QUEUED
    evaluation.error = evaluation.failing_since = evaluation.finished_at = None
    outbox.add(session, outbox.EVALUATE, evaluation.id)


async def require_running(session: AsyncSession, evaluation_id: UUID) -> None:
    """Nobody else ends the evaluation before this transaction does.

    Raises:
        Conflict: it is over, so whoever works on it comes too late.
    """
    evaluation = await get(session, evaluation_id, lock=True)
    if evaluation.state != EvaluationState.RUNNING:
        raise Conflict(f"evaluation {evaluation_id} has {evaluation.state} without this process")


def sampling_of(config: EvaluationConfig) -> dict[str, Any]:
    """What an answer depends on; evaluations that agree in it share answers."""
    return {
        "temperature": config.temperature,
        "top_p": config.top_p,
        "max_tokens": config.max_tokens,
    }


async def unanswered(
    session: AsyncSession, version: str, config: EvaluationConfig
) -> list[tuple[int, tuple[Message, ...]]]:
    """(id, conversation) of the evaluation prompts that the version has not answered."""
    ids = await prompts.take(session, config.dataset, 0, config.num_prompts)
    answered = select(EvaluationAnswer.prompt_id).where(
        EvaluationAnswer.version_id == version, EvaluationAnswer.sampling == sampling_of(config)
    )
    rows = await session.execute(
        select(Prompt.id, Prompt.messages)
        .where(Prompt.id.in_(ids), Prompt.id.not_in(answered))
        .order_by(Prompt.id)
    )
    return [(prompt_id, tuple(messages)) for prompt_id, messages in rows]  # type: ignore[arg-type]


async def add_answer(
    session: AsyncSession,
    version: str,
    prompt_id: int,
    config: EvaluationConfig,
    *,
    answer: str | None,
    reason: str | None,
) -> None:
    """Store an answer, or why there is none; one that is there stays."""
    await session.execute(
        insert(EvaluationAnswer)
        .values(
            version_id=version,
            prompt_id=prompt_id,
            sampling=sampling_of(config),
            text=None if answer is None else storable(answer),
            reason=reason,
        )
        .on_conflict_do_nothing()
    )


async def answers(session: AsyncSession, version: str, dataset: str) -> list[dict[str, Any]]:
    """The version's newest stored answer to each prompt of the dataset, in the prompts' order.

    Raises:
        NotFound: there is none.
    """
    rows = await session.execute(
        select(Prompt.messages, EvaluationAnswer.text, EvaluationAnswer.sampling)
        .join(Prompt, Prompt.id == EvaluationAnswer.prompt_id)
        .where(
            EvaluationAnswer.version_id == version,
            Prompt.dataset == dataset,
            EvaluationAnswer.text.is_not(None),
        )
        .order_by(Prompt.id, EvaluationAnswer.id.desc())
        .ext(distinct_on(Prompt.id))
    )
    found = [
        {"messages": messages, "answer": answer, "sampling": sampling}
        for messages, answer, sampling in rows
    ]
    if not found:
        raise NotFound(
            f"{version} has no stored answers to the dataset {dataset!r}; an evaluation makes "
            f"them: `rewardloop evaluate {version} OTHER --dataset {dataset}`"
        )
    return found


async def _both_answers(
    session: AsyncSession, evaluation: Evaluation, config: EvaluationConfig
) -> Sequence[Any]:
    """(prompt id, messages, A's answer, B's answer) of every prompt that both answered."""
    ids = await prompts.take(session, config.dataset, 0, config.num_prompts)
    a, b = aliased(EvaluationAnswer), aliased(EvaluationAnswer)
    sampling = sampling_of(config)
    rows = await session.execute(
        select(Prompt.id, Prompt.messages, a.text, b.text)
        .join(a, a.prompt_id == Prompt.id)
        .join(b, b.prompt_id == Prompt.id)
        .where(
            Prompt.id.in_(ids),
            a.version_id == evaluation.version_a_id,
            b.version_id == evaluation.version_b_id,
            a.sampling == sampling,
            b.sampling == sampling,
            a.text.is_not(None),
            b.text.is_not(None),
        )
        .order_by(Prompt.id)
    )
    return rows.all()


async def uncompared(
    session: AsyncSession, evaluation: Evaluation, config: EvaluationConfig
) -> list[Uncompared]:
    """Every order of every prompt that no judgement is stored of."""
    rows = await session.execute(
        select(Comparison.prompt_id, Comparison.a_first).where(
            Comparison.evaluation_id == evaluation.id
        )
    )
    done = set(rows.all())
    return [
        Uncompared(
            prompt_id,
            tuple(messages),
            first=a if a_first else b,
            second=b if a_first else a,
            a_first=a_first,
        )
        for prompt_id, messages, a, b in await _both_answers(session, evaluation, config)
        for a_first in (True, False)
        if (prompt_id, a_first) not in done
    ]


async def add_comparison(
    session: AsyncSession, evaluation_id: UUID, item: Uncompared, written: WrittenComparison
) -> None:
    await session.execute(
        insert(Comparison)
        .values(
            evaluation_id=evaluation_id,
            prompt_id=item.prompt_id,
            a_first=item.a_first,
            raw_text=storable(written.raw_text),
            preference=written.preference,
            reason=written.reason,
            rubric_version=written.rubric_version,
            judge_version=written.judge_version,
            nonce=written.nonce,
            distribution=written.distribution,
            probability=written.probability,
        )
        .on_conflict_do_nothing()
    )


async def judges_of(session: AsyncSession, run_id: UUID) -> list[str]:
    """The models that judged the run's evaluations so far."""
    found = await session.scalars(
        select(Comparison.judge_version)
        .join(Evaluation, Evaluation.id == Comparison.evaluation_id)
        .where(Evaluation.run_id == run_id, Comparison.preference.is_not(None))
        .distinct()
        .order_by(Comparison.judge_version)
    )
    return list(found)


async def num_prompts(session: AsyncSession, config: EvaluationConfig) -> int:
    return len(await prompts.take(session, config.dataset, 0, config.num_prompts))


async def succeed(
    session: AsyncSession,
    evaluation_id: UUID,
    config: EvaluationConfig,
    left_out: dict[str, int],
) -> dict[str, Any]:
    """Count, store the result with what it leaves out, and let what waits have the engines."""
    evaluation = await get(session, evaluation_id, lock=True)
    stored = await session.execute(
        select(
            Comparison.prompt_id,
            Comparison.a_first,
            Comparison.preference,
            Comparison.probability,
        ).where(Comparison.evaluation_id == evaluation_id)
    )
    found = {
        (prompt_id, a_first): (None if preference is None else Preference(preference), probability)
        for prompt_id, a_first, preference, probability in stored
    }
    nothing = (None, None)
    rows = [
        compared(
            found.get((prompt_id, True), nothing),
            found.get((prompt_id, False), nothing),
            length_a=len(a),
            length_b=len(b),
        )
        for prompt_id, _, a, b in await _both_answers(session, evaluation, config)
    ]
    if not rows:
        raise InvalidInput(
            f"no prompt of the dataset {config.dataset!r} was answered by both versions; "
            "its prompts may be too long for the model"
        )
    result = {**asdict(head_to_head(rows)), **left_out}
    evaluation.result = result
    evaluation.state = EvaluationState.SUCCEEDED
    evaluation.wish = None
    evaluation.finished_at = datetime.now(UTC)
    events.record(session, "evaluation.succeeded", run_id=evaluation.run_id, id=str(evaluation_id))
    await session.flush()
    await engines.wake_next(session)
    return result


async def note_failure(session: AsyncSession, evaluation_id: UUID, error: RewardloopError) -> None:
    """Fail the evaluation, unless the error may pass by itself and has not lasted too long."""
    evaluation = await get(session, evaluation_id, lock=True)
    if evaluation.state != EvaluationState.RUNNING:
        return
    if not await failures.must_end(session, evaluation, error):
        return
    evaluation.state = EvaluationState.FAILED
    evaluation.wish = None
    evaluation.error = error.message
    evaluation.finished_at = datetime.now(UTC)
    events.record(
        session,
        "evaluation.failed",
        run_id=evaluation.run_id,
        id=str(evaluation_id),
        error=error.message,
    )
    await session.flush()
    await engines.wake_next(session)


async def note_progress(session: AsyncSession, evaluation_id: UUID) -> None:
    """Work went on, so failures before it were passing ones."""
    await session.execute(
        update(Evaluation)
        .where(Evaluation.id == evaluation_id, Evaluation.failing_since.is_not(None))
        .values(failing_since=None)
    )
