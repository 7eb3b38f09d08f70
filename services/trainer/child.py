"""Runs a module of this room in a child process and listens to what it reports.

The child gets its task as one line of JSON on stdin, and reports JSON objects on
stdout, one a line; what libraries print goes to stderr. An object with the key
`error` is the last one of a failure. One with the key `validation` is a question:
the child waits for one line of JSON on stdin.
"""

import asyncio
import errno
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, TypeVar

from rewardloop import telemetry
from rewardloop.errors import DiskFull, TrainingFailed
from rewardloop.process.orphans import dying_with_parent

SILENCE_SECONDS = 2 * 3600.0
"""A step is logged as it is taken, so this is far above the slowest step, load or save."""

T = TypeVar("T")
Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


async def run_child(
    module: str, task: dict[str, Any], answer: Answer | None = None
) -> AsyncIterator[dict[str, Any]]:
    """Start `python -m module`, yield its reports, and end with it.

    A question goes to `answer` instead of being yielded, and what comes back to the child.
    Without `answer` the child's stdin ends after the task, so that a question fails there.

    Raises:
        DiskFull, TrainingFailed: what the child reported, or that it died or hangs without a
            word.
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
            said = _checked(line)
            if answer is not None and "validation" in said:
                child.stdin.write(_line(await answer(said["validation"])))
            else:
                yield said
        if await _heard(child.wait()):
            raise TrainingFailed(
                f"the training process ended with status {child.returncode} and no word; "
                "was it short of memory? Its log is above this line in the trainer's log"
            )
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


def _line(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def _checked(line: bytes) -> dict[str, Any]:
    try:
        said: dict[str, Any] = json.loads(line)
    except ValueError as error:
        raise TrainingFailed(
            "the training process died in the middle of a report; was it short of memory?"
        ) from error
    if "error" in said:
        raise (DiskFull if said.get("disk_full") else TrainingFailed)(said["error"])
    return said


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
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        report(
            channel,
            error=f"{type(error).__name__}: {error}",
            disk_full=full or isinstance(error, DiskFull),
        )
        raise
