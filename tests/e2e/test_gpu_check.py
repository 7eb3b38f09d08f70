"""The CPU form of `make gpu-check`: every step of it, with tiny shapes."""

import json
from pathlib import Path

import pytest

from benchmarks.gpu_check import TRAININGS, main

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(280)]


def test_every_training_is_measured(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--tiny", "--out", str(tmp_path)]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["gpu_check"] == "passed"
    assert said["steps"]["card"]["versions"]["torch"]
    for training in TRAININGS:
        found = said["steps"][training.name]
        assert found["tokens_per_second"] > 0
        assert len(found["step_seconds"]) == len(found["losses"]) == 2
        assert ("publish_seconds" in found) == training.publishes
    kept = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [line["step"] for line in kept if "tokens_per_second" in line] == [
        training.name for training in TRAININGS
    ]


def test_what_the_time_is_too_short_for_is_skipped_and_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--tiny", "--seconds", "0"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {step["skipped"] for step in said["steps"].values()} == {"0 s are left of --seconds"}


def test_a_step_that_fails_is_told_and_the_others_are_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """In children of their own; the model's folder is damaged."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    broken = tmp_path / "model-tiny"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    only = ["8b-lora-sft", "card"]
    assert main(["--tiny", "--isolated", "--only", *only, "--work", str(tmp_path)]) == 1
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["gpu_check"] == "failed"
    assert "config.json" in said["steps"]["8b-lora-sft"]["log"]
    assert "failed" not in said["steps"]["card"]
