"""How a child ends, told to its parent by kind."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rewardloop.errors import (
    DiskFull,
    NoExamples,
    OutOfMemory,
    RewardloopError,
    TrainingDiverged,
    TrainingFailed,
    TrainingKilled,
)
from services.trainer.child import run_child

Write = Callable[[str], str]
HEADER = """
import os, sys
from rewardloop.errors import TrainingDiverged
from services.trainer.child import open_channel, report, reported_errors
from services.trainer.rows import NothingToTrainOn
task, channel = open_channel()
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a module for a child to run; returns its name."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path.cwd())]))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    def write(code: str) -> str:
        (tmp_path / "ending_child.py").write_text(HEADER + code)
        return "ending_child"

    return write


async def ended(name: str) -> RewardloopError:
    with pytest.raises(RewardloopError) as caught:
        async for _ in run_child(name, {}):
            pass
    return caught.value


@pytest.mark.parametrize(
    ("raised", "kind", "told"),
    [
        ('OSError(28, "No space left on device")', DiskFull, "free some space"),
        ("MemoryError()", OutOfMemory, "micro_batch_size"),
        ('NothingToTrainOn("nothing is left")', NoExamples, "nothing is left"),
        ('ValueError("bad pairs")', TrainingFailed, "ValueError: bad pairs"),
        (
            'TrainingDiverged("the loss is nan", step=3, quantity="loss", type="urn:x")',
            TrainingDiverged,
            "the loss is nan",
        ),
    ],
)
async def test_an_error_has_the_same_kind_on_both_sides(
    module: Write, raised: str, kind: type[RewardloopError], told: str
) -> None:
    error = await ended(module(f"with reported_errors(channel):\n    raise {raised}"))
    assert type(error) is kind
    assert told in error.message


async def test_what_diverged_is_named_in_the_context(module: Write) -> None:
    raised = 'TrainingDiverged("the loss is nan", step=3, quantity="loss")'
    error = await ended(module(f"with reported_errors(channel):\n    raise {raised}"))
    assert error.context == {"step": 3, "quantity": "loss"}


@pytest.mark.parametrize(
    ("number", "name", "told", "in_a_report"),
    [
        (9, "SIGKILL", "memory", False),
        (9, "SIGKILL", "memory", True),
        (11, "SIGSEGV", "trainer's log", False),
    ],
)
async def test_a_signal_is_named(
    module: Write, number: int, name: str, told: str, in_a_report: bool
) -> None:
    half = 'channel.write("{\\"step\\": ")\nchannel.flush()\n' if in_a_report else ""
    error = await ended(module(f"{half}os.kill(os.getpid(), {number})"))
    assert type(error) is TrainingKilled
    assert name in error.message
    assert told in error.message


async def test_a_status_is_no_signal(module: Write) -> None:
    error = await ended(module('channel.write("{\\"st")\nchannel.flush()\nos._exit(3)'))
    assert type(error) is TrainingFailed
    assert "status 3" in error.message


async def test_a_report_that_is_cut_at_a_good_end_is_an_error(module: Write) -> None:
    error = await ended(module('channel.write("{\\"st")\nchannel.flush()\nos._exit(0)'))
    assert type(error) is TrainingFailed
    assert "middle of a report" in error.message
