"""What a training job has to do, read out of Postgres: the child, its data, its lineage."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.config import RunConfig, Training, WinnersOnly, stored_run_config
from rewardloop.records import IterationKind, Stage
from rewardloop.store import eft, ift, iterations, pairs, prompts, runs
from rewardloop.store.models import Iteration, Run, TrainingJob

SFT = "services.trainer.sft"
DPO = "services.trainer.dpo"


@dataclass(frozen=True, slots=True)
class Plan:
    """One training, whole."""

    version: str
    """The id to publish under; names lineage at a glance."""
    kind: str
    """`sft` or `dpo`, as model versions know it."""
    parent: str
    child: str
    """The module that trains."""
    task: dict[str, Any]
    """What the child is told, but for the folders."""
    about: dict[str, Any]
    """What the manifest says of the checkpoint."""
    config: RunConfig


async def plan_of(session: AsyncSession, job: TrainingJob) -> Plan:
    iteration = await iterations.get(session, job.iteration_id)
    run = await runs.get(session, iteration.run_id)
    config = stored_run_config(run.config)
    assert iteration.trains_version_id is not None
    child, task = await _child_and_data(session, iteration, config, Stage(job.stage))
    kind = "sft" if child == SFT else "dpo"
    seed = config.seed + iteration.index
    return Plan(
        version=version_name(run, iteration, Stage(job.stage)),
        kind=kind,
        parent=iteration.trains_version_id,
        child=child,
        task={**task, "seed": seed},
        about={
            "kind": kind,
            "parent": iteration.trains_version_id,
            "lag": iteration.lag,
            "run_id": str(run.id),
            "iteration": iteration.index,
            "config_sha256": run.config_sha256,
            "seed": seed,
            "num_pairs" if child == DPO else "num_examples": len(
                task["pairs" if child == DPO else "examples"]
            ),
        },
        config=config,
    )


def version_name(run: Run, iteration: Iteration, stage: Stage = Stage.MODEL) -> str:
    """`run-<id>-sft` for the baseline, else `run-<id>-m<t>`, with the paper's t: iteration t
    makes M_t+1, and the bootstrap (0) makes M1. Unique because run and index are."""
    name = "sft" if stage is Stage.BASELINE else f"m{iteration.index + 1}"
    return f"run-{run.id.hex[:12]}-{name}"


async def _child_and_data(
    session: AsyncSession, iteration: Iteration, config: RunConfig, stage: Stage
) -> tuple[str, dict[str, Any]]:
    if iteration.kind == IterationKind.BOOTSTRAP:
        return SFT, await _human_examples(session, iteration, config, stage)
    rows = await pairs.page(session, iteration.run_id, iteration=iteration.index, limit=10**7)
    cut = await pairs.cut_answers(session, iteration.id)
    training = config.training
    if isinstance(training.loss, WinnersOnly):
        winners = {row["chosen_response_id"]: row for row in rows}.values()
        examples = [_winner(row, cut) for row in winners]
        settings = training.model_dump(mode="json", exclude={"loss", "beta", "early_stopping"})
        return SFT, {
            "config": settings,
            "schedule": "linear",
            "examples": examples,
            "early_stopping": await _early_stopping(session, training),
        }
    return DPO, {
        "config": training.model_dump(mode="json", exclude={"early_stopping"}),
        "pairs": [_pair(row, cut) for row in rows],
        "label_smoothing": await pairs.label_smoothing_of(session, iteration, config.pairing),
        "early_stopping": await _early_stopping(session, training),
    }


async def _human_examples(
    session: AsyncSession, iteration: Iteration, config: RunConfig, stage: Stage
) -> dict[str, Any]:
    assert config.bootstrap is not None
    imitated = await ift.examples(session, iteration, config)
    examples = [{**example, "kind": "ift"} for example in imitated]
    settings = config.bootstrap.ift
    if stage is Stage.MODEL:
        judged = await eft.examples(session, iteration.id, config.judging.rubric)
        examples += [{**example, "kind": "eft"} for example in judged]
        settings = config.bootstrap.ift_and_eft
    return {
        "config": settings.model_dump(mode="json"),
        "schedule": "cosine",
        "examples": examples,
    }


async def _early_stopping(session: AsyncSession, training: Training) -> dict[str, Any] | None:
    how = training.early_stopping
    if how is None:
        return None
    ids = await prompts.take(session, how.dataset, 0, how.num_prompts)
    return {
        "every_num_steps": how.every_num_steps,
        "max_tokens": how.max_tokens,
        "prompts": await prompts.conversations(session, ids),
    }


def _winner(row: dict[str, Any], cut: set[int]) -> dict[str, Any]:
    return {
        "prompt": row["prompt"],
        "completion": row["chosen"],
        "kind": "winner",
        "is_cut": row["chosen_response_id"] in cut,
    }


def _pair(row: dict[str, Any], cut: set[int]) -> dict[str, Any]:
    """One row in TRL's conversational preference format, and whether each side was cut."""
    return {
        "prompt": row["prompt"],
        "chosen": [{"role": "assistant", "content": row["chosen"]}],
        "rejected": [{"role": "assistant", "content": row["rejected"]}],
        "chosen_is_cut": row["chosen_response_id"] in cut,
        "rejected_is_cut": row["rejected_response_id"] in cut,
    }
