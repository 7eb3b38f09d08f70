"""One demo, real in every part, that most tests of this folder look at, and a tiny model.

`rewardloop demo --iterations 2 --keep` runs as a user would run it; when it says
that the stack stays up, the tests ask the database and the servers.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from services.trainer import optimisation
from tests.e2e.real_demo import NUM_PROMPTS, Demo
from tests.e2e.tiny_model import write_tiny_model

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
        shutil.rmtree(home / "checkpoints", ignore_errors=True)  # gigabytes; its logs stay


def _wait_for(words: str, log: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + DEMO_SECONDS
    while words not in log.read_text():
        assert process.poll() is None, log.read_text()[-4000:]
        assert time.monotonic() < deadline, log.read_text()[-4000:]
        time.sleep(1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama that trains in seconds."""
    torch.set_num_threads(1)
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the bf16 autocast, whose rounding would hide a wrong formula."""
    arguments = optimisation.arguments

    def without_bf16(*given: Any) -> dict[str, Any]:
        return {**arguments(*given), "bf16": False}

    monkeypatch.setattr(optimisation, "arguments", without_bf16)
