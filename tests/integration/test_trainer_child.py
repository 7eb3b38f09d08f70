"""What a trainer learns of its child; the child is a few lines instead of TRL."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from rewardloop.errors import DiskFull, TrainingFailed
from services.trainer.child import run_child
from tests.integration.trainer_jobs import Write


async def reports(name: str, task: dict[str, Any]) -> list[dict[str, Any]]:
    return [report async for report in run_child(name, task)]


async def test_a_child_gets_its_task_and_reports(module: Write) -> None:
    name = module('print("noise")\nreport(channel, got=task, offline=os.environ["HF_HUB_OFFLINE"])')
    task = {"seed": 3, "pairs": ["é" * 200_000]}  # more than a pipe holds
    assert await reports(name, task) == [{"got": task, "offline": "1"}]


async def test_an_error_that_a_child_reports_is_raised(module: Write) -> None:
    name = module(
        'report(channel, step=1)\nreport(channel, error="ValueError: no", disk_full=False)'
    )
    seen: list[dict[str, Any]] = []

    async def listen() -> None:
        async for report in run_child(name, {}):
            seen.append(report)

    with pytest.raises(TrainingFailed, match="ValueError: no"):
        await listen()
    assert seen == [{"step": 1}]


async def test_a_full_disk_is_told_apart(module: Write) -> None:
    with pytest.raises(DiskFull, match="no room"):
        await reports(module('report(channel, error="no room", disk_full=True)'), {})


async def test_a_child_that_dies_without_a_word_is_an_error(module: Write) -> None:
    with pytest.raises(TrainingFailed, match="status -9"):
        await reports(module("report(channel, step=1)\nos.kill(os.getpid(), 9)"), {})
    with pytest.raises(TrainingFailed, match="status 3"):
        await reports(module("sys.exit(3)"), {})


async def test_a_child_that_dies_in_the_middle_of_a_line_is_an_error(module: Write) -> None:
    with pytest.raises(TrainingFailed):
        await reports(module('channel.write("{\\"step\\": ")\nchannel.flush()\nos._exit(1)'), {})


async def test_a_child_that_dies_before_it_reads_its_task_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed):
        await reports("there_is_no_such_module", {"pairs": ["x" * 1_000_000]})


async def test_a_child_does_not_outlive_its_listener(module: Write) -> None:
    name = module("report(channel, pid=os.getpid())\ntime.sleep(60)")

    async def listen() -> None:
        async for report in run_child(name, {}):
            started.set_result(report["pid"])

    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    listener = asyncio.create_task(listen())
    pid = await started
    listener.cancel()
    with suppress(asyncio.CancelledError):
        await listener
    assert not psutil.pid_exists(pid)
