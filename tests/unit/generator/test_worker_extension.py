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


class Packed(torch.nn.Module):
    """A layer as vLLM leaves it on a CPU: its numbers are where nobody can read them."""

    def __init__(self, numbers: torch.Tensor) -> None:
        super().__init__()
        self.numbers = [numbers]
        self.input_size_per_partition = numbers.shape[1]
        self.weight = torch.nn.Parameter(torch.ones(0), requires_grad=False)

    def cpu_linear(self, x: torch.Tensor, _: Any, bias: None) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.numbers[0], bias)


@pytest.mark.parametrize("index", [(0, 0), (3, 7), (2, 5)])
def test_a_change_anywhere_in_a_packed_layer_is_seen(worker: Any, index: tuple[int, int]) -> None:
    """An adapter changes such layers alone, whose tensors are empty before and after."""
    layer = Packed(torch.ones(4, 8))
    worker.model_runner.get_model().add_module("proj", layer)
    before = worker.sample_weights()
    assert worker.sample_weights() == before
    layer.numbers[0][index] += 0.01
    after = worker.sample_weights()
    assert {name for name in before if before[name] != after[name]} == {"proj, packed"}


def test_the_digest_of_an_adapter_is_of_all_its_tensors(worker: Any) -> None:
    """vLLM keeps the sides of layers that it packs into one as lists, with gaps."""
    plain = SimpleNamespace(lora_a=torch.ones(2, 4), lora_b=torch.ones(4, 2))
    packed = SimpleNamespace(lora_a=[torch.ones(2, 4), None], lora_b=[torch.ones(4, 2), None])
    held = {1: SimpleNamespace(loras={"o_proj": plain, "qkv_proj": packed})}
    manager = SimpleNamespace(_adapter_manager=SimpleNamespace(get_adapter=held.get))
    worker.model_runner.lora_manager = manager
    digests = {worker.adapter_digest(1)}
    for tensor in (plain.lora_a, plain.lora_b, packed.lora_a[0], packed.lora_b[0]):
        tensor[1, 1] = 7
        digests.add(worker.adapter_digest(1))
    assert len(digests) == 5
