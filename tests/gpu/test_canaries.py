"""Canaries in bf16 from a GPU: another device agrees on them within their bound."""

import json
from pathlib import Path
from statistics import mean

import pytest
import torch
from transformers import AutoModelForCausalLM

from rewardloop import checkpoints
from services.trainer.canaries import continuation_logprobs, write_canaries
from tests.gpu.needs import GPU

pytestmark = GPU


def test_the_cpu_agrees_within_the_bound_of_a_swap(small: Path) -> None:
    swap = pytest.importorskip("services.generator.canaries", exc_type=ImportError)
    write_canaries(small)
    document = json.loads((small / checkpoints.CANARIES).read_text())
    model = AutoModelForCausalLM.from_pretrained(small, dtype=torch.bfloat16).eval()
    differences = []
    for canary in document["canaries"]:
        tokens = canary["continuation_token_ids"]
        again = continuation_logprobs(model, canary["prompt_token_ids"], tokens)
        differences += [abs(a - b) for a, b in zip(again, canary["logprobs"], strict=True)]
    bound = max(swap.CANARY_BOUND, swap.ROUNDING_FACTOR * document["rounding_nats"])
    assert mean(differences) <= bound
    assert document["rounding_nats"] > 0
