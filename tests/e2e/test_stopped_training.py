"""Trainings that are paused, diverge or find no room, with TRL on a tiny model."""

import errno
import io
import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from rewardloop.errors import DiskFull, TrainingDiverged
from services.trainer import dpo, resumable, sft
from services.trainer.child import reported_errors
from services.trainer.faults import as_ours
from services.trainer.saved_state import States
from tests.e2e.test_early_stopping import dpo_task, same_weights, sft_task

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


class Channel(io.StringIO):
    """Where the child reports; at the step `at`, `then` is called."""

    def __init__(self, at: int = 0, then: Any = None) -> None:
        super().__init__()
        self._at, self._then = at, then

    def write(self, text: str) -> int:
        said = json.loads(text)
        if self._then is not None and said.get("step") == self._at:
            self._then()
        return super().write(text)

    @property
    def reports(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]

    def told(self, name: str) -> list[Any]:
        return [said[name] for said in self.reports if name in said]

    @property
    def steps(self) -> list[int]:
        return [said["step"] for said in self.reports if "loss" in said.get("metrics", {})]


def resumable_task(make: Any, tiny: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    task = make(tiny, folder / "out", **changes)
    task["config"] |= {"save_every_steps": 3}
    return {**task, "state": str(folder / ".out.state")}


def trained(module: Any, task: dict[str, Any], channel: Channel | None = None) -> Channel:
    channel = channel or Channel()
    module.train(task, channel)
    return channel


def is_written(task: dict[str, Any]) -> bool:
    return (Path(task["output"]) / "model.safetensors").exists()


@pytest.mark.parametrize(("module", "make"), [(sft, sft_task), (dpo, dpo_task)])
def test_a_pause_saves_at_the_next_step_and_changes_nothing(
    tiny: Path, tmp_path: Path, module: Any, make: Any
) -> None:
    task = resumable_task(make, tiny, tmp_path, dropout=0.3)
    states = States(Path(task["state"]))
    paused = trained(module, task, Channel(at=1, then=lambda: states.ask_to_stop(True)))
    # The wish came while step 1 was logged, so behind the look at it: step 2 is the next.
    assert paused.told("paused_at") == [2]
    assert paused.steps == [1, 2]
    assert not is_written(task)
    still = trained(module, task)
    assert (still.told("paused_at"), still.steps) == ([2], [])
    states.ask_to_stop(False)
    resumed = trained(module, task)
    assert resumed.told("resumed_at") == [2]
    assert resumed.steps[0] == 3

    whole = make(tiny, tmp_path / "whole", dropout=0.3)
    trained(module, whole)
    assert same_weights(tmp_path / "out", tmp_path / "whole")


def test_adapters_go_on_too(tiny: Path, tmp_path: Path) -> None:
    changes = {"dropout": 0.3, "num_epochs": 2, "weights": {"kind": "lora", "rank": 4, "alpha": 8}}
    task = resumable_task(dpo_task, tiny, tmp_path, **changes)
    states = States(Path(task["state"]))
    trained(dpo, task, Channel(at=4, then=lambda: states.ask_to_stop(True)))
    states.ask_to_stop(False)
    assert trained(dpo, task).told("resumed_at") == [5]
    trained(dpo, dpo_task(tiny, tmp_path / "whole", **changes))
    assert same_weights(tmp_path / "out", tmp_path / "whole")


def test_without_a_number_of_steps_a_state_is_saved_only_where_it_is_asked_to_stop(
    tiny: Path, tmp_path: Path
) -> None:
    task = resumable_task(dpo_task, tiny, tmp_path)
    task["config"]["save_every_steps"] = None
    states = States(Path(task["state"]))
    assert trained(dpo, task).told("saved_step") == []
    shutil.rmtree(task["output"])
    paused = trained(dpo, task, Channel(at=2, then=lambda: states.ask_to_stop(True)))
    assert paused.told("saved_step") == [3]


def test_a_state_of_other_rows_is_not_gone_on_from(tiny: Path, tmp_path: Path) -> None:
    task = resumable_task(dpo_task, tiny, tmp_path)
    trained(dpo, task)
    other = {**task, "pairs": task["pairs"][:-2]}
    channel = trained(dpo, other)
    (why,) = channel.told("began_anew")
    assert "rows" in why
    assert channel.told("resumed_at") == []
    assert channel.steps == [1, 2, 3]


def test_a_damaged_state_is_passed_over_and_told(tiny: Path, tmp_path: Path) -> None:
    task = resumable_task(sft_task, tiny, tmp_path)
    states = States(Path(task["state"]))
    trained(sft, task, Channel(at=6, then=lambda: states.ask_to_stop(True)))
    states.ask_to_stop(False)
    newest, before = states.listed()
    (newest.folder / "optimizer.pt").write_bytes(b"no optimizer")
    again = trained(sft, task)
    assert again.told("num_damaged_states") == [1]
    assert again.told("resumed_at") == [before.step]
    assert again.steps[0] == before.step + 1


class Poison(TrainerCallback):  # type: ignore[misc]
    """Makes one weight NaN before the step `at`."""

    def __init__(self, at: int) -> None:
        self._at = at

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self._at - 1:
            with torch.no_grad():
                next(iter(kwargs["model"].parameters()))[0, 0] = torch.nan


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize(("module", "make"), [(sft, sft_task), (dpo, dpo_task)])
def test_a_loss_that_is_not_finite_ends_the_training_at_its_step(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, make: Any, step: int
) -> None:
    def poisoned(task: dict[str, Any], channel: Any) -> Any:
        trainer = build(task, channel)
        trainer.add_callback(Poison(step))
        return trainer

    build = module.build
    monkeypatch.setattr(module, "build", poisoned)
    task = resumable_task(make, tiny, tmp_path)
    channel = Channel()
    with pytest.raises(TrainingDiverged) as caught, reported_errors(channel):
        trained(module, task, channel)
    assert (caught.value.context["step"], caught.value.context["quantity"]) == (step, "loss")
    assert channel.steps == list(range(1, step + 1))
    logged = [said["metrics"]["loss"] for said in channel.reports if "metrics" in said]
    assert str(logged[-1]) == "nan"
    assert channel.told("kind") == ["diverged"]
    assert not is_written(task)


def test_a_huge_learning_rate_ends_the_training_and_not_the_swap(
    tiny: Path, tmp_path: Path
) -> None:
    task = resumable_task(sft_task, tiny, tmp_path, learning_rate=1e30, learning_rate_floor=1e29)
    channel = Channel()
    with pytest.raises(TrainingDiverged, match="learning_rate"):
        trained(sft, task, channel)
    assert channel.steps[-1] <= 2
    assert not is_written(task)


def test_weights_that_are_not_finite_after_the_last_step_are_not_saved(
    tiny: Path, tmp_path: Path
) -> None:
    """No later loss tells it."""
    task = resumable_task(dpo_task, tiny, tmp_path, num_epochs=0.25)
    task["config"]["learning_rate"] = float("inf")
    with pytest.raises(TrainingDiverged, match=r"after step 1 the tensor .* not finite"):
        trained(dpo, task)
    assert States(Path(task["state"])).newest() is None
    assert not is_written(task)


@contextmanager
def no_file_above(num_bytes: int) -> Iterator[None]:
    """To a writer this is as a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_state_that_finds_no_room_is_told_and_costs_nothing_else(
    tiny: Path, tmp_path: Path
) -> None:
    task = resumable_task(dpo_task, tiny, tmp_path)
    size_of_weights = (tiny / "model.safetensors").stat().st_size
    with no_file_above(int(size_of_weights * 1.2)):  # AdamW's moments are twice that
        channel = trained(dpo, task)
    assert channel.told("saved_step") == []
    assert channel.told("num_states_not_saved") == [1, 2]
    assert is_written(task)
    whole = dpo_task(tiny, tmp_path / "whole")
    trained(dpo, whole)
    assert same_weights(tmp_path / "out", tmp_path / "whole")


def test_no_state_takes_the_room_of_the_checkpoint(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size_of_weights = (tiny / "model.safetensors").stat().st_size
    usage = shutil.disk_usage(tmp_path)
    free = size_of_weights * 3  # enough for a state alone
    monkeypatch.setattr(resumable.shutil, "disk_usage", lambda _: usage._replace(free=free))
    channel = trained(dpo, resumable_task(dpo_task, tiny, tmp_path))
    assert channel.told("saved_step") == []
    assert "no room for a state" in channel.told("state_not_saved")[0]


def test_after_room_was_made_the_checkpoint_is_written_without_new_training(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = resumable_task(sft_task, tiny, tmp_path)
    size_of_weights = (tiny / "model.safetensors").stat().st_size
    save = sft.save

    def save_on_a_full_disk(*args: Any) -> None:
        with no_file_above(size_of_weights // 2):
            save(*args)

    monkeypatch.setattr(sft, "save", save_on_a_full_disk)
    with pytest.raises(Exception, match=f"os error {errno.EFBIG}") as caught:
        trained(sft, task)
    assert isinstance(as_ours(caught.value), DiskFull)
    shutil.rmtree(task["output"])  # as the trainer does

    monkeypatch.setattr(sft, "save", save)
    again = trained(sft, task)
    assert again.told("resumed_at") == [8]
    assert again.steps == []
    whole = sft_task(tiny, tmp_path / "whole")
    trained(sft, whole)
    assert same_weights(tmp_path / "out", tmp_path / "whole")


@pytest.mark.parametrize("has_changed", [False, True])
def test_the_reference_is_computed_once_unless_its_file_has_changed(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_changed: bool
) -> None:
    kept_in = tmp_path / ".tiny.reference"
    task = resumable_task(dpo_task, tiny, tmp_path)
    task["reference"] = {"folder": str(kept_in), "base": "the digest of its manifest"}
    first = dpo.build(task, Channel()).train_dataset["ref_chosen_logps"]
    generator = torch.get_rng_state()
    (kept,) = kept_in.iterdir()
    if has_changed:
        kept.write_bytes(kept.read_bytes()[:-4] + b"\0\0\0\0")
    num_computed = 0
    compute = dpo.PairTrainer.compute_ref_log_probs

    def counted(*args: Any) -> Any:
        nonlocal num_computed
        num_computed += 1
        return compute(*args)

    monkeypatch.setattr(dpo.PairTrainer, "compute_ref_log_probs", counted)
    second = dpo.build(task, Channel()).train_dataset["ref_chosen_logps"]
    assert (num_computed > 0) == has_changed
    assert list(first) == list(second)
    assert torch.equal(torch.get_rng_state(), generator), "dropout would not repeat"
