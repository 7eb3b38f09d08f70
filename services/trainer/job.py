"""One training job: its plan out of Postgres, TRL in a child, a published checkpoint, a commit."""

import asyncio
import logging
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from importlib.metadata import version as package_version
from typing import Any, TypeVar

from celery import Celery
from sqlalchemy.ext.asyncio import AsyncSession
from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential_jitter

from rewardloop import checkpoints, telemetry
from rewardloop.config import Settings
from rewardloop.errors import TrainingDiverged, UpstreamUnavailable
from rewardloop.queue import relay
from rewardloop.store import Store, iterations, training, versions
from rewardloop.store.models import TrainingJob
from services.trainer import kept_logps, saved_state
from services.trainer.child import run_child
from services.trainer.child_runs import with_restart
from services.trainer.faults import as_ours
from services.trainer.plan import Plan, plan_of
from services.trainer.saved_state import States
from services.trainer.start import start_from
from services.trainer.stopping import Stopped, stopped_when_asked
from services.trainer.validation import Validation

logger = logging.getLogger("rewardloop.trainer")

LEASE_SECONDS = 60.0
RENEW_SECONDS = 15.0
SPACE_FACTOR = 2.2
"""A checkpoint is written in float32, so it may be twice a bf16 base; plus the tokenizer. An
adapter's states take their room where there is some."""
PACKAGES = ("torch", "transformers", "trl", "peft")

T = TypeVar("T")


async def work_on(
    store: Store, app: Celery, settings: Settings, job: TrainingJob, owner: str
) -> None:
    """Train the job's iteration and record how it ended."""
    try:
        with telemetry.phase_timer("train"):
            telemetry.add_work(iteration=job.iteration_id)
            async with _lease_kept(store, job, owner):
                plan, manifest = await _train(store, settings, job)
    except Stopped:
        async with store.transaction() as session:
            await training.end_stopped(session, job)
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
    told = as_ours(error)
    foreseen = told is error
    logger.error("job %d: %s", job.id, told.message, exc_info=not foreseen)
    async with store.transaction() as session:
        if foreseen and told.transient:
            await training.note_failure(session, job, told)
        else:
            await training.fail(session, job, told.message, told.kind)


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
        committed = checkpoints.digest_of((await versions.get(session, plan.parent)).manifest)
    telemetry.add_work(run=run_id, version=plan.version)
    root = settings.checkpoint_root
    parent = checkpoints.folder_of(root, plan.parent)
    final = checkpoints.folder_of(root, plan.version)
    states = States(saved_state.folder_of(root, plan.version))
    async with stopped_when_asked(store, job, states):
        # There are gigabytes to hash, and a lease to keep.
        of_parent = await asyncio.to_thread(checkpoints.verify, parent)
        checkpoints.require_committed(of_parent, committed)
        if final.exists():  # published by an attempt that died before it could commit
            manifest = await asyncio.to_thread(checkpoints.verify, final)
        else:
            start = start_from(parent, of_parent, plan.task["config"]["weights"])
            checkpoints.require_space(root, int(start.checkpoint_bytes * SPACE_FACTOR))
            plan.about.update(start.about)
            folder = kept_logps.folder_of(root, plan.parent)
            known = {"folder": str(folder), "base": checkpoints.digest_of(of_parent)}
            task = {**plan.task, **start.task, "reference": known}
            manifest = await _train_and_publish(store, settings, job, plan, task, states)
    await asyncio.to_thread(states.remove)
    return plan, manifest


async def _train_and_publish(
    store: Store,
    settings: Settings,
    job: TrainingJob,
    plan: Plan,
    task: dict[str, Any],
    states: States,
) -> dict[str, Any]:
    root = settings.checkpoint_root
    for left in root.glob(f".{plan.version}.attempt-*"):
        shutil.rmtree(left, ignore_errors=True)  # of an attempt that was killed
    staging = root / f".{plan.version}.attempt-{job.num_attempts}"
    task = {**task, "output": str(staging), "state": str(states.folder)}
    try:
        await _run_and_record(store, settings, job, plan, task)
        about = plan.about | {"software": {name: package_version(name) for name in PACKAGES}}
        return await _to_its_end(
            lambda: checkpoints.publish(
                root, plan.version, lambda folder: _move_files(staging, folder), about
            )
        )
    except TrainingDiverged:
        states.remove()  # from there it would diverge again
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        states.remove_unused()


async def _to_its_end(work: Callable[[], T]) -> T:
    """`work` in a thread. It is waited for even if this task is cancelled: what it reads must
    not be removed under it."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def _move_files(source: Any, target: Any) -> None:
    for path in source.iterdir():
        path.rename(target / path.name)


async def _run_and_record(
    store: Store, settings: Settings, job: TrainingJob, plan: Plan, task: dict[str, Any]
) -> None:
    """
    Raises:
        Stopped: the child saved its state and ended, because it was asked to.
    """
    validation = _validation(settings, plan)

    async def answer(check: dict[str, Any]) -> dict[str, Any]:
        assert validation is not None
        said = await validation.answer(check)
        metrics = {name: value for name, value in said.items() if name != "go_on"}
        if metrics:
            await _record(store, job, {"step": check["step"], "metrics": metrics})
        return said

    def start() -> AsyncGenerator[dict[str, Any], None]:
        shutil.rmtree(task["output"], ignore_errors=True)  # of a child that was killed
        return run_child(plan.child, task, answer if validation else None)

    is_stopped = False
    async with aclosing(with_restart(start)) as reports:
        async for report in reports:
            # TRL closes with a summary that is no step and has no loss.
            telemetry.TRAIN_STEPS.inc(int("loss" in report.get("metrics", {})))
            await _record(store, job, report)
            if "num_dropped" in report:  # else the manifest would claim rows that taught nothing
                plan.about["num_dropped"] = report["num_dropped"]
            is_stopped = is_stopped or "paused_at" in report
    if is_stopped:
        raise Stopped


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
        if "resumed_at" in report:
            await training.keep_metrics(session, job, report["resumed_at"])
        await iterations.add_to_report(session, job.iteration_id, f"training_{job.stage}", report)


def _validation(settings: Settings, plan: Plan) -> Validation | None:
    how = plan.config.training.early_stopping
    if how is None or not plan.task.get("early_stopping"):
        return None
    return Validation(settings, plan.task["early_stopping"]["prompts"], how)
