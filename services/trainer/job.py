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
from sqlalchemy.ext.asyncio import AsyncSession
from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential_jitter

from rewardloop import checkpoints, telemetry
from rewardloop.config import Settings
from rewardloop.errors import UpstreamUnavailable, recordable
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
            telemetry.add_work(iteration=job.iteration_id)
            async with _lease_kept(store, job, owner):
                plan, manifest = await _train(store, settings, job)
    except Exception as error:
        await _record_failure(store, job, error)
    else:
        async with store.transaction() as session:
            await versions.add(
                session, plan.version, kind=plan.kind, parent=plan.parent, manifest=manifest
            )
            await training.succeed(session, job, plan.version)
    await relay(store, app)


async def _record_failure(store: Store, job: TrainingJob, error: Exception) -> None:
    """Fail the job, unless the error may pass: then its lease runs out and it is taken again."""
    told = recordable(error)
    foreseen = told is error
    logger.error("job %d: %s", job.id, told.message, exc_info=not foreseen)
    async with store.transaction() as session:
        if foreseen and told.transient:
            await training.note_failure(session, job, told)
        else:
            await training.fail(session, job, told.message)


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
        logger.warning("job %d was taken by another trainer, or its iteration is over", job.id)
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
        run_id = (await iterations.get(session, job.iteration_id)).run_id
    telemetry.add_work(run=run_id, version=plan.version)
    base = checkpoints.folder_of(settings.checkpoint_root, plan.parent)
    await asyncio.to_thread(checkpoints.verify, base)  # gigabytes to hash, and a lease to keep
    checkpoints.require_space(
        settings.checkpoint_root, int(checkpoints.size_of(base) * SPACE_FACTOR)
    )
    final = checkpoints.folder_of(settings.checkpoint_root, plan.version)
    if final.exists():  # published by an attempt that died before it could commit
        return plan, await asyncio.to_thread(checkpoints.verify, final)
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

    async def answer(check: dict[str, Any]) -> dict[str, Any]:
        assert validation is not None
        said = await validation.answer(check)
        metrics = {name: value for name, value in said.items() if name != "go_on"}
        if metrics:
            await _record(store, job, {"step": check["step"], "metrics": metrics})
        return said

    async for report in run_child(plan.child, task, answer if validation else None):
        # TRL closes with a summary that is no step and has no loss.
        telemetry.TRAIN_STEPS.inc(int("loss" in report.get("metrics", {})))
        await _record(store, job, report)
        if "num_dropped" in report:  # else the manifest would claim rows that taught nothing
            plan.about["num_dropped"] = report["num_dropped"]


async def _record(store: Store, job: TrainingJob, report: dict[str, Any]) -> None:
    """Store a report, which may be done twice. Waits for Postgres where it is away: hours of
    training are not thrown away for that, and a lost lease cancels the wait."""
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(UpstreamUnavailable),
        wait=wait_exponential_jitter(multiplier=0.2, max=5),
    ):
        with attempt:
            async with store.transaction() as session:
                await _store(session, job, report)


async def _store(session: AsyncSession, job: TrainingJob, report: dict[str, Any]) -> None:
    if "num_steps" in report:
        await training.set_num_steps(session, job.id, report["num_steps"])
    elif "metrics" in report:
        await training.add_metrics(session, job, report["step"], report["metrics"])
    else:
        await iterations.add_to_report(session, job.iteration_id, f"training_{job.stage}", report)


def _validation(settings: Settings, plan: Plan) -> Validation | None:
    how = plan.config.training.early_stopping
    if how is None or not plan.task.get("early_stopping"):
        return None
    return Validation(settings, plan.task["early_stopping"]["prompts"], how)
