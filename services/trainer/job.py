"""One training job: pairs out of Postgres, DPO in a child, a published checkpoint, a commit."""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version as package_version
from typing import Any

from celery import Celery

from rewardloop import checkpoints, telemetry
from rewardloop.config import RunConfig, Settings
from rewardloop.errors import RewardloopError, UpstreamUnavailable
from rewardloop.queue import relay
from rewardloop.store import Store, iterations, pairs, runs, training, versions
from rewardloop.store.models import Iteration, Run, TrainingJob
from services.trainer.child import run_child

logger = logging.getLogger("rewardloop.trainer")

LEASE_SECONDS = 60.0
RENEW_SECONDS = 15.0
SPACE_FACTOR = 2.2
"""A checkpoint is written in float32, so it may be twice a bf16 base; plus the tokenizer."""
PACKAGES = ("torch", "transformers", "trl", "peft")


async def work_on(
    store: Store, app: Celery, settings: Settings, job: TrainingJob, owner: str
) -> None:
    """Train the job's iteration and record how it ended."""
    try:
        with telemetry.phase_timer("train"):
            async with _lease_kept(store, job, owner):
                version, manifest, parent = await _train(store, settings, job)
    except RewardloopError as error:
        if error.transient:
            raise  # the lease runs out and the job is taken again
        logger.error("job %d failed: %s", job.id, error.message)
        async with store.transaction() as session:
            await training.fail(session, job, error.message)
    else:
        async with store.transaction() as session:
            await versions.add(session, version, kind="dpo", parent=parent, manifest=manifest)
            await training.succeed(session, job, version)
    await relay(store, app)


@asynccontextmanager
async def _lease_kept(store: Store, job: TrainingJob, owner: str) -> AsyncIterator[None]:
    work = asyncio.current_task()
    assert work is not None

    async def keep() -> None:
        kept = True
        while kept:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                async with store.transaction() as session:
                    kept = await training.renew(session, job.id, owner, LEASE_SECONDS)
            except UpstreamUnavailable as error:
                logger.warning("lease not renewed: %s", error.message)
        logger.warning("another trainer took job %d", job.id)
        work.cancel()

    keeper = asyncio.create_task(keep())
    try:
        yield
    finally:
        keeper.cancel()


async def _train(
    store: Store, settings: Settings, job: TrainingJob
) -> tuple[str, dict[str, Any], str]:
    """Returns the new version, its manifest and its parent."""
    async with store.transaction() as session:
        iteration = await iterations.get(session, job.iteration_id)
        run = await runs.get(session, iteration.run_id)
        rows = await pairs.page(session, run.id, iteration=iteration.index, limit=10**7)
    assert iteration.base_version_id is not None
    base = checkpoints.folder_of(settings.checkpoint_root, iteration.base_version_id)
    checkpoints.verify(base)
    checkpoints.require_space(
        settings.checkpoint_root, int(checkpoints.size_of(base) * SPACE_FACTOR)
    )
    version = version_name(run, iteration)
    final = checkpoints.folder_of(settings.checkpoint_root, version)
    if final.exists():  # published by an attempt that died before it could commit
        return version, checkpoints.verify(final), iteration.base_version_id
    staging = settings.checkpoint_root / f".{version}.attempt-{job.num_attempts}"
    task = {
        "base": str(base),
        "output": str(staging),
        "config": run.config["training"],
        "seed": int(run.config["seed"]) + iteration.index,
        "pairs": [_example(row) for row in rows],
    }
    try:
        await _run_and_record(store, job, task)
        manifest = await asyncio.to_thread(
            checkpoints.publish,
            settings.checkpoint_root,
            version,
            lambda folder: _move_files(staging, folder),
            _about(run, iteration, len(rows)),
        )
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return version, manifest, iteration.base_version_id


def version_name(run: Run, iteration: Iteration) -> str:
    """Names lineage at a glance; unique because run and index are."""
    return f"run-{run.id.hex[:12]}-m{iteration.index}"


def _example(row: dict[str, Any]) -> dict[str, Any]:
    """One row in TRL's conversational preference format."""
    return {
        "prompt": row["prompt"],
        "chosen": [{"role": "assistant", "content": row["chosen"]}],
        "rejected": [{"role": "assistant", "content": row["rejected"]}],
    }


def _about(run: Run, iteration: Iteration, num_pairs: int) -> dict[str, Any]:
    config = RunConfig.model_validate(run.config)
    return {
        "kind": "dpo",
        "parent": iteration.base_version_id,
        "run_id": str(run.id),
        "iteration": iteration.index,
        "config_sha256": run.config_sha256,
        "seed": config.seed + iteration.index,
        "num_pairs": num_pairs,
        "software": {name: package_version(name) for name in PACKAGES},
    }


def _move_files(source: Any, target: Any) -> None:
    for path in source.iterdir():
        path.rename(target / path.name)


async def _run_and_record(store: Store, job: TrainingJob, task: dict[str, Any]) -> None:
    async for report in run_child("services.trainer.dpo", task):
        async with store.transaction() as session:
            if "num_steps" in report:
                await training.set_num_steps(session, job.id, report["num_steps"])
            if "metrics" in report:
                # TRL closes with a summary that is no step and has no loss.
                telemetry.TRAIN_STEPS.inc(int("loss" in report["metrics"]))
                await training.add_metrics(session, job, report["step"], report["metrics"])
