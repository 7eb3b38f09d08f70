"""Child processes: their ends, their logs, and the ports they want."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from rewardloop.embedded import process
from rewardloop.embedded.process import Process, accepts, free_port, require_free
from rewardloop.errors import Conflict, EnvironmentUnfit

SLEEP = ["sleep", "60"]
Start = Callable[..., Process]


def kill(child: Process) -> None:
    with suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGKILL)
    child._popen.wait()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts children, which are gone after the test."""
    started: list[Process] = []

    def start(*command: str, **environment: str) -> Process:
        child = Process("child", command, environment, tmp_path / "child.log")
        started.append(child)
        return child

    yield start
    for child in started:
        kill(child)


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_a_child_that_ends_tells_its_status_and_the_end_of_its_log(start: Start) -> None:
    child = start(*shell("seq 1 40; echo cannot bind >&2; exit 3"))
    with pytest.raises(EnvironmentUnfit, match="child ended with status 3") as caught:
        await child.wait_until(lambda: False, timeout_seconds=10)
    told = caught.value.message.splitlines()
    assert told[-2:] == ["40", "cannot bind"]
    assert len(told) == 16
    assert str(child.log) in told[0]


async def test_a_child_that_is_ready_is_left_running(start: Start) -> None:
    child = start(*SLEEP)
    answers = iter([False, True])
    await child.wait_until(lambda: next(answers), timeout_seconds=10)
    child.require_alive()
    assert exists(child.pid)


async def test_a_child_that_is_never_ready_is_given_up(start: Start) -> None:
    child = start(*SLEEP)
    with pytest.raises(EnvironmentUnfit, match=r"not ready after 0 s; see .*child\.log"):
        await child.wait_until(lambda: False, timeout_seconds=0.01)


def test_stop(start: Start) -> None:
    child = start(*SLEEP)
    child.stop()
    assert not exists(child.pid)
    child.stop()
    with pytest.raises(EnvironmentUnfit, match="status -15"):
        child.require_alive()


def test_a_child_is_stopped_by_the_signal_of_its_choice(tmp_path: Path) -> None:
    """Postgres takes SIGINT for "now, but cleanly"; SIGTERM waits for its clients."""
    # What a shell starts in the background ignores SIGINT, and `sleep` would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        child = Process("child", SLEEP, {}, tmp_path / "log", stop_signal=signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    child.stop()
    with pytest.raises(EnvironmentUnfit, match="status -2"):
        child.require_alive()


def test_a_child_that_does_not_listen_goes_with_its_children(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "STOP_SECONDS", 0.1)
    child = start(*shell("trap '' TERM; sleep 60 & echo $!; wait; wait; sleep 60"))
    wait_for(lambda: child.log.read_text().endswith("\n"))
    grandchild = int(child.log.read_text())
    child.stop()
    assert not exists(child.pid)
    status = Path(f"/proc/{grandchild}/status")
    wait_for(lambda: not status.exists() or "State:\tZ" in status.read_text())


def test_a_child_gets_the_environment_and_no_input(start: Start) -> None:
    child = start(*shell('cat; echo "$COLOUR in $HOME"'), COLOUR="blue")
    wait_for(lambda: child._popen.poll() is not None)
    assert child.log.read_text() == f"blue in {os.environ['HOME']}\n"


def test_a_log_is_added_to(start: Start) -> None:
    for word in ("one", "two"):
        child = start("echo", word)
        wait_for(lambda child=child: child._popen.poll() is not None)  # type: ignore[misc]
    assert child.log.read_text() == "one\ntwo\n"


def test_a_child_dies_with_its_parent(tmp_path: Path, start: Start) -> None:
    program = (
        "import pathlib, sys, time\n"
        "from rewardloop.embedded.process import Process\n"
        f"child = Process('inner', ['sleep', '60'], {{}}, pathlib.Path({str(tmp_path)!r}, 'i'))\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = start(sys.executable, "-c", program)
    wait_for(lambda: parent.log.read_text().endswith("\n"))
    inner = Path(f"/proc/{int(parent.log.read_text())}/status")
    assert inner.exists()
    kill(parent)
    wait_for(lambda: not inner.exists() or "State:\tZ" in inner.read_text())


def test_a_port_in_use_is_refused_by_its_number() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert accepts(port)
        with pytest.raises(Conflict, match=f"port {port} is in use"):
            require_free(port)
    assert not accepts(port)
    require_free(port)


def test_a_free_port_is_free() -> None:
    port = free_port()
    assert port > 0
    assert not accepts(port)
    require_free(port)
