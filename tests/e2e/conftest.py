"""One demo, real in every part, that all tests of this folder look at.

`rewardloop demo --iterations 2 --keep` runs as a user would run it; when it says
that the stack stays up, the tests ask the database and the servers.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.real_demo import NUM_PROMPTS, Demo

DEMO_SECONDS = 840


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    home = tmp_path_factory.mktemp("e2e") / "home"
    log = home.with_name("demo.log")
    command = [str(Path(sys.executable).parent / "rewardloop"), "demo", "--home", str(home)]
    command += ["--prompts", str(NUM_PROMPTS), "--iterations", "2", "--keep"]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ})
    try:
        _wait_for("stays up until", log, process)
        yield Demo(
            home=home,
            summary=json.loads((home / "summary.json").read_text()),
            addresses=json.loads((home / "stack.json").read_text()),
            keys=json.loads((home / "credentials.json").read_text()),
            output=log.read_text(),
        )
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(words: str, log: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + DEMO_SECONDS
    while words not in log.read_text():
        assert process.poll() is None, log.read_text()[-4000:]
        assert time.monotonic() < deadline, log.read_text()[-4000:]
        time.sleep(1)
