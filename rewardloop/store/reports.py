"""A run as a whole, for people: its versions side by side. Reads only."""

from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.config import stored_run_config
from rewardloop.method.conformance import Found, conformance
from rewardloop.method.head_to_head import with_intervals
from rewardloop.records import IterationKind, Stage
from rewardloop.store import (
    evaluations,
    iteration_progress,
    iterations,
    pairs,
    prompts,
    ranked,
    runs,
    training,
    versions,
)
from rewardloop.store.models import Iteration, Run

NUM_EXAMPLES = 5


async def of_run(session: AsyncSession, run_id: UUID) -> dict[str, Any]:
    """What the report page shows; `docs/reference/report.md` describes the keys.

    Raises:
        NotFound: there is no such run.
    """
    run = await runs.get(session, run_id)
    whole = await iterations.of_run(session, run_id)
    labels = labels_of(run, whole)
    compared = await evaluations.list_newest(session, 200, run_id)
    return {
        "run": {
            "id": str(run.id),
            "name": run.name,
            "config": run.config,
            "config_sha256": run.config_sha256,
            "software": run.software,
            "base_version": run.base_version_id,
            "created_at": run.created_at.isoformat(),
        },
        "conformance": await _conformance(session, run, whole),
        "versions": [await _version(session, i, label) for i, label in labels.items()],
        "assessments": [a for i in whole for a in await _assessments(session, i, labels)],
        "iterations": [await _iteration(session, i) for i in whole],
        "evaluations": [
            {
                "id": str(e.id),
                "a": labels.get(e.version_a_id, e.version_a_id),
                "b": labels.get(e.version_b_id, e.version_b_id),
                "state": e.state,
                "error": e.error,
                "result": with_intervals(e.result),
            }
            for e in reversed(compared)
        ],
    }


def labels_of(run: Run, whole: list[Iteration]) -> dict[str, str]:
    """Version ids to the paper's names, in the order of their making.

    A run without a bootstrap starts at its M1.
    """
    has_bootstrap = bool(whole) and whole[0].kind == IterationKind.BOOTSTRAP
    labels = {run.base_version_id: "M0" if has_bootstrap else "M1"}
    for iteration in whole:
        if iteration.baseline_version_id is not None:
            labels[iteration.baseline_version_id] = "SFT"
        if iteration.new_version_id is not None:
            labels[iteration.new_version_id] = f"M{iteration.index + 1}"
    return labels


async def conformance_of(session: AsyncSession, run_id: UUID) -> list[dict[str, Any]]:
    run = await runs.get(session, run_id)
    return await _conformance(session, run, await iterations.of_run(session, run_id))


async def _conformance(
    session: AsyncSession, run: Run, whole: list[Iteration]
) -> list[dict[str, Any]]:
    found = Found(
        bootstrap=next((i.report for i in whole if i.kind == IterationKind.BOOTSTRAP), {}),
        improvements=[i.report for i in whole if i.kind == IterationKind.IMPROVE],
        num_held_out=len(await ranked.held_out_digests(session, run.id)) or None,
        dataset_sizes=await prompts.datasets(session),
        judges=await evaluations.judges_of(session, run.id),
    )
    return conformance(stored_run_config(run.config), found)


async def _version(session: AsyncSession, version: str, label: str) -> dict[str, Any]:
    found = await versions.get(session, version)
    return {
        "label": label,
        "id": version,
        "kind": found.kind,
        "created_at": found.created_at.isoformat(),
    }


async def _assessments(
    session: AsyncSession, iteration: Iteration, labels: dict[str, str]
) -> list[dict[str, Any]]:
    return [
        {
            "label": labels.get(a.version_id, a.version_id),
            "version": a.version_id,
            "mode": a.mode,
            "purpose": a.purpose,
            "metrics": a.metrics,
        }
        for a in await ranked.assessments_of(session, iteration.id)
    ]


async def _iteration(session: AsyncSession, iteration: Iteration) -> dict[str, Any]:
    progress = await iteration_progress.progress(session, iteration)
    examples = await pairs.page(
        session, iteration.run_id, iteration=iteration.index, limit=NUM_EXAMPLES
    )
    return {
        "index": iteration.index,
        "kind": iteration.kind,
        "state": iteration.state,
        "phase": iteration.phase,
        "error": iteration.error,
        "base_version": iteration.base_version_id,
        "trains_version": iteration.trains_version_id,
        "lag": iteration.lag,
        "new_version": iteration.new_version_id,
        "baseline_version": iteration.baseline_version_id,
        "seconds": progress["seconds"],
        "counts": progress["counts"],
        "report": iteration.report,
        "scores": await iteration_progress.scores(session, iteration.id),
        "lengths": await _lengths(session, iteration.id),
        "training": await training.metrics_of(session, iteration.id),
        "baseline_training": await training.metrics_of(session, iteration.id, Stage.BASELINE),
        "examples": [
            {
                key: row[key]
                for key in ("prompt", "chosen", "rejected", "chosen_score", "rejected_score")
            }
            for row in examples
        ],
    }


async def _lengths(session: AsyncSession, iteration_id: UUID) -> dict[str, float] | None:
    """Mean and percentiles of the responses' lengths in characters."""
    row = await session.execute(
        text(
            "SELECT avg(length(text))::float AS mean,"
            " percentile_cont(0.1) WITHIN GROUP (ORDER BY length(text)) AS p10,"
            " percentile_cont(0.5) WITHIN GROUP (ORDER BY length(text)) AS p50,"
            " percentile_cont(0.9) WITHIN GROUP (ORDER BY length(text)) AS p90"
            " FROM responses WHERE iteration_id = :id"
        ),
        {"id": iteration_id},
    )
    found = row.mappings().one()
    return None if found["mean"] is None else dict(found)
