"""Which prompts a run must not train on, since it is measured by them.

Those are the prompts of the datasets that `evaluation` and early stopping name, unless
`prompts.allow_evaluation_prompts` is set, and the rankings that the run holds out, always.
Prompts are compared by `question_sha256`: by their last turn, whatever its letter case,
blanks and Unicode form, in whatever dataset they stand.
"""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, false, func, not_, or_, select, true
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from rewardloop.config import RunConfig
from rewardloop.records import IterationKind
from rewardloop.store.models import Iteration, IterationPrompt, Prompt, RankedSplit

SUBJECT = "contamination"
"""The key of an iteration's report under which it is told."""


def evaluation_datasets(config: RunConfig) -> list[str]:
    """Where the prompts of evaluations and of early stopping come from."""
    wanted = (config.evaluation, config.training.early_stopping)
    return list(dict.fromkeys(how.dataset for how in wanted if how is not None))


def questions(run_id: UUID, config: RunConfig) -> Select[str]:
    """`question_sha256` of every prompt that the run must not train on."""
    return _questions(or_(_is_held_out(run_id), _is_refused(config)))


def evaluation_questions(config: RunConfig) -> Select[str]:
    """The same without what the run holds out: a bootstrap knows its own split."""
    return _questions(_is_refused(config))


def _questions(condition: ColumnElement[bool]) -> Select[str]:
    other = aliased(Prompt)
    within = select(Prompt.id).where(condition).correlate(None)
    return select(other.question_sha256).where(other.id.in_(within))


def _is_refused(config: RunConfig) -> ColumnElement[bool]:
    if config.prompts.allow_evaluation_prompts:
        return false()
    return Prompt.dataset.in_(evaluation_datasets(config))


def _is_held_out(run_id: UUID) -> ColumnElement[bool]:
    return Prompt.id.in_(
        select(RankedSplit.prompt_id).where(RankedSplit.run_id == run_id, RankedSplit.held_out)
    )


async def note(session: AsyncSession, iteration: Iteration, config: RunConfig) -> None:
    """Put into a new iteration's report how many prompts it could take and does not, if any."""
    found = await _count(session, iteration, config)
    if found["num_left_out"] or found["num_kept"]:
        iteration.report = {SUBJECT: found}


async def _count(session: AsyncSession, iteration: Iteration, config: RunConfig) -> dict[str, Any]:
    """Of the prompts that the iteration may choose from, those that the run is measured by."""
    datasets = evaluation_datasets(config)
    is_bootstrap = iteration.kind == IterationKind.BOOTSTRAP
    marks = {name: _asked_in(Prompt.dataset == name) for name in datasets}
    # A bootstrap holds out a part of its own dataset: that is its split, no overlap.
    held_out = false() if is_bootstrap else _asked_in(_is_held_out(iteration.run_id))
    name, chosen_from = _chosen_from(iteration, config)
    pool = (
        select(
            or_(false(), *marks.values()).label("evaluation"),
            held_out.label("held_out"),
            *(mark.label(f"dataset_{number}") for number, mark in enumerate(marks.values())),
        )
        .where(chosen_from)
        .subquery()
    )
    columns = [pool.c[f"dataset_{number}"] for number in range(len(datasets))]
    is_kept = config.prompts.allow_evaluation_prompts or _is_replayed(iteration, config)
    left_out = pool.c.held_out if is_kept else or_(pool.c.evaluation, pool.c.held_out)
    kept = and_(pool.c.evaluation, not_(left_out))
    wanted = [true(), left_out, kept, pool.c.held_out, *columns]
    row = (await session.execute(select(*(func.count().filter(w) for w in wanted)))).one()
    return {
        "dataset": name,
        "num_prompts": row[0],
        "num_left_out": row[1],
        "num_kept": row[2],
        "held_out": row[3],
        "evaluation": dict(zip(datasets, row[4:], strict=True)),
    }


def _asked_in(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether a prompt asks the question of a prompt of which the condition is true."""
    return Prompt.question_sha256.in_(_questions(condition))


def _chosen_from(iteration: Iteration, config: RunConfig) -> tuple[str, ColumnElement[bool]]:
    if _is_replayed(iteration, config):
        ids = select(IterationPrompt.prompt_id).where(IterationPrompt.iteration_id == iteration.id)
        return config.prompts.dataset, Prompt.id.in_(ids)
    if iteration.kind == IterationKind.BOOTSTRAP:
        assert config.bootstrap is not None
        return config.bootstrap.dataset, Prompt.dataset == config.bootstrap.dataset
    return config.prompts.dataset, Prompt.dataset == config.prompts.dataset


def _is_replayed(iteration: Iteration, config: RunConfig) -> bool:
    """Then its prompts and answers are the other run's, whatever they are."""
    return config.replay is not None and iteration.index == 1


def told(iterations: Iterable[Iteration]) -> list[str]:
    """A sentence for each dataset of which these iterations leave out or keep prompts."""
    found = [iteration.report[SUBJECT] for iteration in iterations if SUBJECT in iteration.report]
    return list(dict.fromkeys(_sentence(counts) for counts in found))


def _sentence(found: dict[str, Any]) -> str:
    where = [f"{num} in {name!r}" for name, num in found["evaluation"].items() if num]
    if found["held_out"]:
        where.append(f"{found['held_out']} in the held-out rankings")
    num_left_out, num_kept = found["num_left_out"], found["num_kept"]
    parts = []
    if num_left_out:
        parts.append(f"left out of training: {num_left_out}")
    if num_kept:
        parts.append(f"trained on anyway: {num_kept}")
    return (
        f"this run is also measured by {num_left_out + num_kept} of the {found['num_prompts']} "
        f"prompts of {found['dataset']!r} ({', '.join(where)}); {', '.join(parts)}"
    )
