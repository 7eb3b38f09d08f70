"""What the GPU check counts: tokens, arithmetic, lengths."""

from random import Random
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.gpu_check import BESIDE_THE_GENERATOR_GIB, TRAININGS
from benchmarks.gpu_check_models import SHAPES, Lengths, pairs
from benchmarks.gpu_check_training import flops_per_token, num_tokens
from rewardloop import presets

pytestmark = pytest.mark.e2e  # for what it imports: TRL


class Model(nn.Module):
    """An embedding of 10 x 4, a layer of 4 x 4, a head of 10 x 4."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.layer = nn.Linear(4, 4, bias=False)
        self.head = nn.Linear(4, 10, bias=False)
        if tied:
            self.head.weight = self.embedding.weight

    def get_input_embeddings(self) -> Any:
        return self.embedding

    def get_output_embeddings(self) -> Any:
        return self.head


def test_an_embedding_that_is_only_looked_up_costs_no_arithmetic() -> None:
    assert flops_per_token(Model(tied=False)) == 6 * (16 + 40)


def test_one_that_is_the_head_too_is_counted_once() -> None:
    assert flops_per_token(Model(tied=True)) == 6 * (16 + 40)


def test_a_frozen_weight_costs_four() -> None:
    model = Model(tied=False)
    model.layer.weight.requires_grad_(False)
    assert flops_per_token(model) == 4 * 16 + 6 * 40


def test_a_pairs_prompt_is_counted_with_each_side() -> None:
    assert num_tokens({"prompt_ids": [1] * 5, "chosen_ids": [1] * 3, "rejected_ids": [1]}) == 14


def test_an_examples_tokens_are_prompt_and_answer() -> None:
    assert num_tokens({"input_ids": [1] * 8, "labels": [-100] * 5 + [1] * 3}) == 8


def test_the_first_pair_fills_max_length_and_the_others_are_shorter() -> None:
    lengths = Lengths(max_length=2000, max_answer=1024)
    made = pairs(64, lengths)
    sizes = [
        (len(p["prompt"][0]["content"]), *(len(p[s][0]["content"]) for s in ("chosen", "rejected")))
        for p in made
    ]
    assert sizes[0] == (976, 1024, 1024)
    assert all(4 <= size <= 1024 for row in sizes for size in row)
    assert 250 < sorted(row[1] for row in sizes[1:])[31] < 450  # the median, 350


def test_the_same_seed_gives_the_same_pairs() -> None:
    lengths = Lengths(max_length=100, max_answer=40)
    assert pairs(3, lengths, seed=1) == pairs(3, lengths, seed=1)
    assert lengths.prompt(Random(1)) <= 60


@pytest.mark.parametrize(("shape", "num_weights"), [("8b", 8_030_261_248), ("1b", 1_235_814_400)])
def test_shapes_are_those_of_the_published_models(shape: str, num_weights: int) -> None:
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**SHAPES[shape]))
    assert sum(weight.numel() for weight in model.parameters()) == num_weights


def test_trainings_name_presets_that_ship() -> None:
    assert {training.preset for training in TRAININGS} <= set(presets.names())
    assert all(
        training.memory_gib == BESIDE_THE_GENERATOR_GIB
        for training in TRAININGS
        if training.preset == "8b-80gb"
    )
