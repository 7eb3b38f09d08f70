"""vLLM on a GPU: it gives its memory to a training and wakes with what was trained."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu_check_engine
from tests.gpu.needs import ENGINE

pytestmark = ENGINE


@pytest.fixture(scope="module")
def said(small: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One engine for all tests: it starts slowly."""
    found: dict[str, Any] = {}
    gpu_check_engine.run(small, tmp_path_factory.mktemp("engine"), found.update, tiny=True)
    return found


def test_it_has_the_weights_that_it_started_with(said: dict[str, Any]) -> None:
    assert said["base_nats"] <= 0.05


def test_sleeping_frees_the_memory(said: dict[str, Any]) -> None:
    """Its fifth of the card, but for what PyTorch and CUDA hold."""
    assert said["freed_gib"] > 10


def test_it_wakes_with_what_was_trained(said: dict[str, Any]) -> None:
    assert said["trained_nats"] <= said["bound"]
    assert said["base_nats_after"] > said["base_nats"]


def test_it_swaps_back_while_awake(said: dict[str, Any]) -> None:
    assert said["base_nats_again"] <= 0.05


def test_an_adapter_is_served_as_its_merged_weights_are(said: dict[str, Any]) -> None:
    assert said["adapter_nats"] <= 0.05
    assert said["base_nats_for_adapter"] > said["adapter_nats"]
