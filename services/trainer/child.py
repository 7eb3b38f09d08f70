"""Runs a module of this room in a child process and listens to what it reports.

The child gets its task as one line of JSON on stdin, and reports JSON objects on
stdout, one a line; what libraries print goes to stderr. An object with the key
`error` is the last one of a failure. One with the key `validation` is a question:
the child waits for one line of JSON on stdin.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, TypeVar

from rewardloop import telemetry
from rewardloop.errors import (
    DiskFull,
    RewardloopError,
    TrainingFailed,
    TrainingKilled,
    from_problem,
)
from rewardloop.process.orphans import dying_with_parent
from services.trainer.faults import as_ours

SILENCE_SECONDS = 2 * 3600.0
"""A step is logged as it is taken, so this is far above the slowest step, load or save."""

T = TypeVar("T")
Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


async def run_child(
    module: str, task: dict[str, Any], answer: Answer | None = None
) -> AsyncGenerator[dict[str, Any], None]:
    """Start `python -m module`, yield its reports, and end with it.

    A question goes to `answer` instead of being yielded, and what comes back to the child.
    Without `answer` the child's stdin ends after the task, so that a question fails there.

    Raises:
        TrainingKilled: a signal ended it.
        RewardloopError: what the child reported, or that it died or hangs without a word.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            telemetry.WORK_VARIABLE: telemetry.work_header(),
        },
        limit=2**24,
        preexec_fn=dying_with_parent(signal.SIGKILL),
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(_line(task))
        if answer is None:
            child.stdin.write_eof()
        while line := await _heard(child.stdout.readline()):
            if (said := _checked(line)) is None:
                break
            if answer is not None and "validation" in said:
                child.stdin.write(_line(await answer(said["validation"])))
            else:
                yield said
        if status := await _heard(child.wait()):
            raise _died(status)
        if line:
            raise TrainingFailed("the training process ended in the middle of a report")
    finally:
        child.stdin.close()
        if child.returncode is None:
            child.kill()
            await child.wait()


async def _heard(something: Awaitable[T]) -> T:
    """
    Raises:
        TrainingFailed: SILENCE_SECONDS went by without it.
    """
    try:
        async with asyncio.timeout(SILENCE_SECONDS):
            return await something
    except TimeoutError as error:
        raise TrainingFailed(
            f"the training process reported nothing for {SILENCE_SECONDS:.0f} s, so it hangs; "
            "its log is above this line in the trainer's log"
        ) from error


def _died(status: int) -> TrainingFailed:
    if status > 0:
        return TrainingFailed(
            f"the training process ended with status {status} and no word; its log is above "
            "this line in the trainer's log"
        )
    name = signal.Signals(-status).name
    memory = (
        "; mostly the system does so when memory is short (dmesg says so): set a smaller "
        "micro_batch_size or max_length, or train adapters"
        if -status == signal.SIGKILL
        else "; its log is above this line in the trainer's log"
    )
    return TrainingKilled(f"the training process was ended by {name} (status {status}){memory}")


def _line(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def _checked(line: bytes) -> dict[str, Any] | None:
    """What the child said; None where it died in the middle of it."""
    try:
        said: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    if "error" in said:
        raise _error(said)
    return said


def _error(said: dict[str, Any]) -> RewardloopError:
    kind = DiskFull.kind if said.get("disk_full") else said.get("kind", TrainingFailed.kind)
    problem = {**said.get("context", {}), "type": kind, "detail": said["error"]}
    return from_problem(problem, status=500)


def report(stream: TextIO, **fields: Any) -> None:
    """Called in the child: send one report to the parent."""
    stream.write(json.dumps(fields) + "\n")
    stream.flush()


def ask(stream: TextIO, **fields: Any) -> dict[str, Any]:
    """Called in the child: send a question to the parent and wait for what it says."""
    report(stream, **fields)
    line = sys.stdin.readline()
    if not line:
        raise RuntimeError("the trainer service ended before it answered")
    said: dict[str, Any] = json.loads(line)
    return said


def open_channel() -> tuple[dict[str, Any], TextIO]:
    """Called in the child: the task, and the stream to report on."""
    task: dict[str, Any] = json.loads(sys.stdin.readline())
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    telemetry.log_json()
    return task, channel


@contextmanager
def reported_errors(channel: TextIO) -> Iterator[None]:
    """Called in the child, at its edge: an error is told to the parent, then raised."""
    try:
        yield
    except Exception as error:
        told = as_ours(error)
        report(channel, error=told.message, kind=told.kind, context=told.context)
        raise
