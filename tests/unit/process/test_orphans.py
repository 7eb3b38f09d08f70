"""A parent that is killed takes its children with it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PARENT = """
import signal, subprocess, sys
from rewardloop.process.orphans import dying_with_parent
command = [sys.executable, "-c", "import time; time.sleep(60)"]
child = subprocess.Popen(command, preexec_fn=dying_with_parent(signal.SIGKILL))
print(child.pid, flush=True)
child.wait()
"""


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] != "Z"  # a zombie that nobody buried is dead


def test_a_killed_parent_leaves_no_orphan() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_running(child)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    deadline = time.monotonic() + 10
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(child)
