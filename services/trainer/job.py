"""One training job: its plan out of Postgres, TRL in a child, a published checkpoint, a commit."""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from celery import Celery

from rewardloop import checkpoints, telemetry
from rewardloop.config import Settings
from rewardloop.errors import RewardloopError, UpstreamUnavailable
from rewardloop.queue import relay
from rewardloop.store import Store, iterations, training, versions
from rewardloop.store.models import TrainingJob
from services.trainer.child import run_child
from services.trainer.plan import Plan, plan_of
from services.trainer.validation import Validation

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
                plan, manifest = await _train(store, settings, job)
    except RewardloopError as error:
        if error.transient:
            raise  # the lease runs out and the job is taken again
        logger.error("job %d failed: %s", job.id, error.message)
        async with store.transaction() as session:
            await training.fail(session, job, error.message)
    else:
        async with store.transaction() as session:
            await versions.add(
                session, plan.version, kind=plan.kind, parent=plan.parent, manifest=manifest
            )
            await training.succeed(session, job, plan.version)
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


async def _train(store: Store, settings: Settings, job: TrainingJob) -> tuple[Plan, dict[str, Any]]:
    """Returns what was done and the published checkpoint's manifest."""
    async with store.transaction() as session:
        plan = await plan_of(session, job)
    base = checkpoints.folder_of(settings.checkpoint_root, plan.parent)
    checkpoints.verify(base)
    checkpoints.require_space(
        settings.checkpoint_root, int(checkpoints.size_of(base) * SPACE_FACTOR)
    )
    final = checkpoints.folder_of(settings.checkpoint_root, plan.version)
    if final.exists():  # published by an attempt that died before it could commit
        return plan, checkpoints.verify(final)
    for left in settings.checkpoint_root.glob(f".{plan.version}.attempt-*"):
        shutil.rmtree(left, ignore_errors=True)  # of an attempt that was killed
    staging = settings.checkpoint_root / f".{plan.version}.attempt-{job.num_attempts}"
    try:
        await _run_and_record(store, settings, job, plan, base, staging)
        manifest = await asyncio.to_thread(
            checkpoints.publish,
            settings.checkpoint_root,
            plan.version,
            lambda folder: _move_files(staging, folder),
            plan.about | {"software": {name: package_version(name) for name in PACKAGES}},
        )
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return plan, manifest


def _move_files(source: Any, target: Any) -> None:
    for path in source.iterdir():
        path.rename(target / path.name)


async def _run_and_record(
    store: Store, settings: Settings, job: TrainingJob, plan: Plan, base: Path, output: Path
) -> None:
    task = {**plan.task, "base": str(base), "output": str(output)}
    validation = _validation(settings, plan)
    answer = validation.answer if validation is not None else None
    async for report in run_child(plan.child, task, answer):
        async with store.transaction() as session:
            if "num_steps" in report:
                await training.set_num_steps(session, job.id, report["num_steps"])
            if "metrics" in report:
                # TRL closes with a summary that is no step and has no loss.
                telemetry.TRAIN_STEPS.inc(int("loss" in report["metrics"]))
                await training.add_metrics(session, job, report["step"], report["metrics"])
            if not {"num_steps", "metrics", "validation"} & set(report):
                await iterations.add_to_report(
                    session, job.iteration_id, f"training_{job.stage}", report
                )
            if validation is not None and validation.results:
                result = validation.results.pop()
                await training.add_metrics(session, job, result.pop("step"), result)


def _validation(settings: Settings, plan: Plan) -> Validation | None:
    how = plan.config.training.early_stopping
    if how is None or not plan.task.get("early_stopping"):
        return None
    return Validation(settings, plan.task["early_stopping"]["prompts"], how)
