"""What is added to vLLM's worker, over a model of a few tensors."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from services.generator.worker_extension import SAMPLED_ELEMENTS, PacksSharedHeads


@pytest.fixture
def worker() -> Any:
    """A worker whose model has a large tensor, a scalar, and one that was packed away."""
    model = torch.nn.Module()
    large = torch.zeros(3, SAMPLED_ELEMENTS, dtype=torch.bfloat16)
    for name, tensor in (("large", large), ("scale", torch.ones(())), ("packed", torch.ones(0))):
        model.register_parameter(name, torch.nn.Parameter(tensor, requires_grad=False))
    made = PacksSharedHeads()
    made.model_runner = SimpleNamespace(get_model=lambda: model)
    return made


def changed(worker: Any, name: str, index: Any) -> set[str]:
    """The tensors whose samples differ once an element is another."""
    before = worker.sample_weights()
    getattr(worker.model_runner.get_model(), name)[index] = 7
    after = worker.sample_weights()
    return {name for name in before if before[name] != after[name]}


def test_every_tensor_is_sampled_an_empty_one_too(worker: Any) -> None:
    assert worker.sample_weights().keys() == {"large", "scale", "packed"}
    assert worker.sample_weights() == worker.sample_weights()


@pytest.mark.parametrize(
    ("name", "index", "seen"),
    [
        ("large", (0, SAMPLED_ELEMENTS - 1), {"large"}),
        ("large", (1, 0), set()),
        ("scale", (), {"scale"}),
    ],
)
def test_a_change_is_seen_in_the_first_elements_alone(
    worker: Any, name: str, index: Any, seen: set[str]
) -> None:
    assert changed(worker, name, index) == seen
