"""Runs and the iterations that are asked of them."""

import hashlib
import json
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.config import Anchored, RunConfig, stored_run_config
from rewardloop.errors import Conflict, InvalidInput, NotFound
from rewardloop.records import IterationKind, IterationState
from rewardloop.store import (
    candidates,
    contamination,
    events,
    outbox,
    prompts,
    ranked,
    replay,
    versions,
)
from rewardloop.store.models import IdempotencyKey, Iteration, IterationPrompt, Run


async def create(session: AsyncSession, config: RunConfig, software: dict[str, str]) -> Run:
    """Store a run with its resolved config.

    Raises:
        NotFound: the config's base version does not exist, or none is served yet.
    """
    if config.replay is not None:
        config = await replay.resolved(session, config)
    base = config.base_version or await _default_base(session, config)
    if base is None:
        raise NotFound("no model version is being served yet; name one as base_version")
    await versions.get(session, base)
    resolved = config.model_copy(update={"base_version": base})
    run = Run(
        id=uuid4(),
        name=config.name,
        config=resolved.model_dump(mode="json"),
        config_sha256=resolved.digest(),
        software=software,
        base_version_id=base,
    )
    session.add(run)
    await session.flush()
    events.record(session, "run.created", run_id=run.id, config_sha256=run.config_sha256)
    return run


async def _default_base(session: AsyncSession, config: RunConfig) -> str | None:
    """What is being served; but a bootstrap begins at a pretrained model."""
    if config.bootstrap is not None:
        return await versions.pretrained(session)
    return await versions.serving(session)


async def get(session: AsyncSession, run_id: UUID, *, lock: bool = False) -> Run:
    """
    Raises:
        NotFound: there is no such run.
    """
    run = await session.get(Run, run_id, with_for_update=lock)
    if run is None:
        raise NotFound(f"there is no run {run_id}; `rewardloop runs` and GET /v1/runs list them")
    return run


async def list_newest(session: AsyncSession, limit: int) -> list[Run]:
    found = await session.scalars(select(Run).order_by(Run.created_at.desc()).limit(limit))
    return list(found)


async def add_iterations(session: AsyncSession, run_id: UUID, count: int) -> list[Iteration]:
    """Append `count` iterations with their prompts and ask the controller to start.

    A run with a bootstrap begins with that, as iteration 0, which `count` does not count.

    Raises:
        NotFound: there is no such run, one of its datasets is empty, or its judge unknown.
        InvalidInput: the ranked dataset has too few prompts to learn from and to measure by, or
            the prompt dataset none to show to the prompt model.
        Conflict: an iteration of the run failed or was cancelled.
    """
    run = await get(session, run_id, lock=True)
    config = stored_run_config(run.config)
    last = await session.scalar(
        select(Iteration)
        .where(Iteration.run_id == run_id)
        .order_by(Iteration.index.desc())
        .limit(1)
    )
    await _require_unfailed(session, run_id)
    await _require_what_comes_late(session, config)
    first = 1 if last is None else last.index + 1
    added = [
        Iteration(id=uuid4(), run_id=run_id, index=first + n, max_lag=config.lag)
        for n in range(count)
    ]
    if last is None and config.bootstrap is not None:
        bootstrap = Iteration(id=uuid4(), run_id=run_id, index=0, kind=IterationKind.BOOTSTRAP)
        without = contamination.evaluation_questions(config)
        await ranked.split(session, run_id, config.bootstrap, config.seed, without=without)
        added.insert(0, bootstrap)
    await _require_shots(session, run_id, config)
    session.add_all(added)
    await session.flush()
    for iteration in added:
        if iteration.index == 1 and config.replay is not None:
            await replay.copy(session, config.replay, iteration)
        elif iteration.index > 1 and isinstance(config.pairing.policy, Anchored):
            await _take_the_firsts_prompts(session, iteration)
        elif iteration.kind == IterationKind.IMPROVE:
            await _take_prompts(session, iteration, config)
        await contamination.note(session, iteration, config)
        events.record(session, "iteration.queued", run_id=run_id, iteration_id=iteration.id)
        outbox.add(session, outbox.ADVANCE, iteration.id)
    await session.flush()
    return added


async def _require_unfailed(session: AsyncSession, run_id: UUID) -> None:
    """
    Raises:
        Conflict: an iteration failed or was cancelled, and what is behind it waits for it.
    """
    failed = await session.scalar(
        select(Iteration)
        .where(Iteration.run_id == run_id, Iteration.state.in_(_STOPPED))
        .order_by(Iteration.index)
        .limit(1)
    )
    if failed is not None:
        newest = failed.trains_version_id or failed.base_version_id
        how = f"failed ({failed.error})" if failed.error else "was cancelled"
        raise Conflict(
            f"iteration {failed.index} of this run {how}; retry it (`rewardloop retry "
            f"{failed.id}`), or start a new run from base_version {newest!r}"
        )


_STOPPED = (IterationState.FAILED, IterationState.CANCELLED)


async def _require_what_comes_late(session: AsyncSession, config: RunConfig) -> None:
    """What is needed late must be there now: nobody wants to learn it in an hour."""
    if config.evaluation is not None and config.evaluation.judge_version is not None:
        await versions.get(session, config.evaluation.judge_version)
    wanted = [how.dataset for how in (config.evaluation, config.training.early_stopping) if how]
    for dataset in wanted:
        await prompts.take(session, dataset, 0, 1)


async def _require_shots(session: AsyncSession, run_id: UUID, config: RunConfig) -> None:
    dataset, how = config.prompts.dataset, config.prompts.self_instruct
    if how is None:
        return
    without = contamination.questions(run_id, config)
    if await candidates.human_shots(session, dataset, without, how.max_words):
        return
    raise InvalidInput(
        f"the dataset {dataset!r} has no prompt of a single turn and at most {how.max_words} "
        "words to show to the prompt model, evaluation and held-out prompts aside; fill it with "
        f"`rewardloop import FILE --dataset {dataset}`"
    )


async def _take_prompts(session: AsyncSession, iteration: Iteration, config: RunConfig) -> None:
    """The iteration's turn of the dataset, unless its prompts are still to be written.

    What the run measures by is no prompt to train on, even where one dataset serves as both.
    """
    source = config.prompts
    num = source.num_per_iteration
    without = contamination.questions(iteration.run_id, config)
    start = (iteration.index - 1) * num
    ids = await prompts.take(session, source.dataset, start, num, without=without)
    if source.self_instruct is None:
        session.add_all(IterationPrompt(iteration_id=iteration.id, prompt_id=i) for i in ids)


async def _take_the_firsts_prompts(session: AsyncSession, iteration: Iteration) -> None:
    """The anchored policy rejects the first model's answers, so only prompts that it answered
    can give pairs."""
    await session.flush()
    firsts = (
        select(literal(iteration.id), IterationPrompt.prompt_id)
        .join(Iteration, Iteration.id == IterationPrompt.iteration_id)
        .where(Iteration.run_id == iteration.run_id, Iteration.index == 1)
    )
    await session.execute(
        insert(IterationPrompt).from_select(["iteration_id", "prompt_id"], firsts)
    )


async def remembered(
    session: AsyncSession, key: str, request: dict[str, Any]
) -> dict[str, Any] | None:
    """What the same request under this Idempotency-Key was answered with, if it was.

    Two calls with one key wait for each other.

    Raises:
        Conflict: the key was used for another request.
    """
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtext(key))))
    found = await session.get(IdempotencyKey, key)
    if found is None:
        return None
    if found.request_sha256 != _digest(request):
        raise Conflict("this Idempotency-Key was used for another request; take a new one")
    return found.response


def remember(
    session: AsyncSession, key: str, request: dict[str, Any], response: dict[str, Any]
) -> None:
    session.add(IdempotencyKey(key=key, request_sha256=_digest(request), response=response))


def _digest(request: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
