"""Folders of saved states: whole or not at all, and only of the same training."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.trainer.saved_state import States, folder_of, identity

TASK: dict[str, Any] = {
    "base": "/checkpoints/base",
    "output": "/checkpoints/.m2.attempt-1",
    "state": "/checkpoints/.m2.state",
    "config": {"learning_rate": 1e-6, "save_every_steps": 50},
    "seed": 3,
    "pairs": [{"prompt": "a", "chosen": "b", "rejected": "c"}],
    "early_stopping": None,
}


def states_in(tmp_path: Path, task: dict[str, Any] = TASK) -> States:
    states = States(tmp_path / ".m2.state")
    states.claim(task)
    return states


def written(tmp_path: Path, weights: str = "weights") -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "model.safetensors").write_text(weights)
    (folder / "trainer_state.json").write_text("{}")
    return folder


def steps(states: States) -> list[str]:
    return sorted(path.name for path in states.folder.glob("step-*"))


def test_the_newest_state_is_found_and_the_last_two_are_kept(tmp_path: Path) -> None:
    states = states_in(tmp_path)
    assert states.newest() is None
    for step in (5, 10, 100):
        states.add(written(tmp_path, str(step)), step, finished=False)
    found = states.newest()
    assert found is not None
    assert (found.step, found.finished) == (100, False)
    assert (found.folder / "model.safetensors").read_text() == "100"
    assert steps(states) == ["step-000000010", "step-000000100"]
    assert not (tmp_path / "checkpoint").exists()


def test_of_a_training_that_is_over_one_state_is_kept(tmp_path: Path) -> None:
    states = states_in(tmp_path)
    states.add(written(tmp_path), 5, finished=False)
    states.add(written(tmp_path), 8, finished=True)
    assert steps(states) == ["step-000000008"]
    found = states.newest()
    assert found is not None
    assert found.finished


@pytest.mark.parametrize(
    "damage", ["changed", "cut", "missing", "added", "no list", "no JSON", "a list", "no step"]
)
def test_a_damaged_state_is_none_and_the_one_before_it_is_taken(
    tmp_path: Path, damage: str
) -> None:
    states = states_in(tmp_path)
    for step in (5, 10):
        states.add(written(tmp_path, str(step)), step, finished=False)
    folder = states.folder / "step-000000010"
    match damage:
        case "changed":
            (folder / "model.safetensors").write_text("11")
        case "cut":
            (folder / "model.safetensors").write_text("weig")
        case "missing":
            (folder / "trainer_state.json").unlink()
        case "added":
            (folder / "more").write_text("")
        case "no list":
            (folder / "whole.json").unlink()
        case "no JSON":
            (folder / "whole.json").write_text('{"step": 1')
        case "a list":
            (folder / "whole.json").write_text("[]")
        case "no step":
            (folder / "whole.json").write_text('{"finished": true}')
    found = states.newest()
    assert found is not None
    assert found.step == 5


def test_a_step_that_is_saved_again_replaces_the_first(tmp_path: Path) -> None:
    states = states_in(tmp_path)
    states.add(written(tmp_path, "first"), 5, finished=False)
    states.add(written(tmp_path, "second"), 5, finished=False)
    found = states.newest()
    assert found is not None
    assert (found.folder / "model.safetensors").read_text() == "second"


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"seed": 4}, "config"),
        ({"config": {"learning_rate": 2e-6, "save_every_steps": 50}}, "config"),
        ({"label_smoothing": 0.1}, "config"),
        ({"early_stopping": {"every_num_steps": 2}}, "config"),
        ({"pairs": []}, "rows"),
        ({"base": "/checkpoints/other"}, "base"),
    ],
)
def test_a_state_of_another_training_is_removed_and_told(
    tmp_path: Path, change: dict[str, Any], part: str
) -> None:
    states_in(tmp_path).add(written(tmp_path), 5, finished=False)
    states = States(tmp_path / ".m2.state")
    assert states.claim(TASK | change) == [part]
    assert states.newest() is None
    assert states.claim(TASK | change) == []


def test_other_software_is_another_training(tmp_path: Path) -> None:
    states = states_in(tmp_path)
    states.add(written(tmp_path), 5, finished=False)
    fits = identity(TASK) | {"software": json.dumps({"torch": "1.0"})}
    (states.folder / "fits.json").write_text(json.dumps(fits))
    assert states.claim(TASK) == ["software"]


@pytest.mark.parametrize(
    "change",
    [
        {"output": "/elsewhere/.m2.attempt-2", "state": "/elsewhere/.m2.state"},
        {"base": "/elsewhere/base"},
        {"config": {"learning_rate": 1e-6, "save_every_steps": None}},
        {"config": {"learning_rate": 1e-6}},
    ],
)
def test_folders_and_the_interval_of_saving_make_no_other_training(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    states_in(tmp_path).add(written(tmp_path), 5, finished=False)
    states = States(tmp_path / ".m2.state")
    assert states.claim(TASK | change) == []
    assert states.newest() is not None


def test_the_first_claim_has_nothing_to_tell_and_keeps_a_wish_to_stop(tmp_path: Path) -> None:
    states = States(tmp_path / ".m2.state")
    assert not states.stop_wanted
    states.ask_to_stop(False)
    assert not states.folder.exists()
    states.ask_to_stop(True)
    assert states.claim(TASK) == []
    assert states.stop_wanted
    states.ask_to_stop(False)
    assert not states.stop_wanted
    assert states.folder.exists()


def test_a_stop_before_anything_was_saved_leaves_nothing(tmp_path: Path) -> None:
    states = States(tmp_path / ".m2.state")
    states.ask_to_stop(True)
    states.ask_to_stop(False)
    assert not states.folder.exists()


def test_states_lie_beside_the_checkpoints_and_are_none(tmp_path: Path) -> None:
    assert folder_of(tmp_path, "run-1-m2") == tmp_path / ".run-1-m2.state"
