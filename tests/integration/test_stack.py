"""The embedded stack as a whole, on the stub engine: `up`, and a demo whose training fails."""

import asyncio
import json
import os
import signal
from functools import partial
from pathlib import Path

import httpx
import pytest

from rewardloop.cli import demo
from rewardloop.embedded import stack
from rewardloop.embedded.home import Home
from rewardloop.errors import TrainingFailed
from tests.integration.stub_home import stub_home


@pytest.fixture
async def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home whose served version is a small checkpoint for the stub engine."""
    made = await stub_home(tmp_path / "home")
    on_the_stub = partial(stack.running, generator="generator.stub_engine")
    monkeypatch.setattr(demo, "running", on_the_stub)
    return made


async def test_up_serves_until_it_is_told_to_stop(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    port = stack.free_port()
    up = asyncio.create_task(demo.up(home, port))
    while "logs " not in (shown := capsys.readouterr().out):
        assert not up.done(), up.result()
        await asyncio.sleep(0.2)
    assert f"http://127.0.0.1:{port}" in shown
    headers = {"authorization": f"Bearer {home.credentials().api_key}"}
    async with httpx.AsyncClient(base_url=home.addresses().api, headers=headers) as api:
        datasets = (await api.get("/v1/datasets")).json()
        assert datasets.keys() == {"evaluation", "ranked", "seed", "validation"}
        assert datasets["seed"] == 141
        assert (await api.get("/v1/models")).json()["items"][0]["serving"]
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(up, 60)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


@pytest.mark.timeout(180)
async def test_a_demo_whose_training_fails_says_why_and_keeps_what_it_has(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stub's checkpoint is no model that transformers can load."""
    with pytest.raises(TrainingFailed, match="tokenizer"):
        await demo.run(home, prompts=4, iterations=2, keep=False)
    written = json.loads(home.summary.read_text())
    first, second = written["iterations"]
    assert (first["responses"], first["judgements"], first["new_version"]) == (16, 48, None)
    assert second["responses"] == 0
    shown = capsys.readouterr().out
    assert "scores of iteration 1" in shown
    assert {path.name for path in home.checkpoints.iterdir()} == {"base"}
