"""Our top-p filter beside vLLM's own, on random logits and on a real model's."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rewardloop import presets
from rewardloop.datasets import read_prompts
from services.generator import nucleus_install
from services.generator.nucleus import keep_nucleus
from tests.e2e.real_demo import Demo

pytestmark = pytest.mark.e2e

SEEDS = Path(presets.__file__).parents[1] / "seeds" / "prompts.jsonl"
ROUNDING = 1e-6
"""Sums of probabilities taken in another order differ by less."""


@pytest.fixture
def vllms() -> Iterator[Any]:
    """vLLM's module, left as it was."""
    with warnings.catch_warnings(action="ignore"):  # torch's own, of what vLLM imports
        from vllm.v1.sample.ops import topk_topp_sampler

    yield topk_topp_sampler
    nucleus_install.sort_heads_only(on=False)


def require_equal(vllms: Any, logits_BV: Any, k_B: Any, p_B: Any) -> None:
    """As many tokens of each value stay, but where the sum at the boundary is p to 1e-6."""

    def own(logits: Any, k: Any, p: Any) -> Any:
        given_k = None if k is None else k.clone()
        return vllms.apply_top_k_top_p_pytorch(logits.clone(), given_k, p, allow_cpu_sync=True)

    theirs_BV = descending(own(logits_BV, k_B, p_B))
    ours_BV = descending(keep_nucleus(logits_BV.clone(), k_B, p_B, own))
    limited_BV = descending(own(logits_BV, k_B, torch.ones_like(p_B)))
    sums_BV = limited_BV.double().softmax(-1).cumsum(-1)
    for row in (theirs_BV != ours_BV).any(-1).nonzero()[:, 0]:
        fewer, more = sorted(int((v[row] > -torch.inf).sum()) for v in (theirs_BV, ours_BV))
        assert torch.equal(theirs_BV[row, :fewer], ours_BV[row, :fewer])
        assert (sums_BV[row, fewer - 1 : more - 1] - p_B[row]).abs().max() < ROUNDING


def descending(logits_BV: Any) -> Any:
    return logits_BV.sort(-1, descending=True).values


@pytest.mark.parametrize("num_tokens", [2000, 49_152, 151_936])
@pytest.mark.parametrize("rounded", [False, True], ids=["float32", "ties of bfloat16"])
def test_random_logits(vllms: Any, num_tokens: int, rounded: bool) -> None:
    noise = torch.Generator().manual_seed(num_tokens)
    logits_BV = torch.randn(16, num_tokens, generator=noise) * torch.linspace(0.1, 8, 16)[:, None]
    if rounded:
        logits_BV = logits_BV.bfloat16().float()
    logits_BV[::4, 40:] = -torch.inf  # as a grammar leaves them
    p_B = torch.tensor([0.9, 0.5, 1.0, 0.99, 1e-7, 0.3, 0.95, 0.9] * 2)
    k_B = torch.tensor([num_tokens, 1, 50, 200, 1500, 5, num_tokens, 20] * 2, dtype=torch.int32)
    require_equal(vllms, logits_BV, None, p_B)
    require_equal(vllms, logits_BV, k_B, p_B)


def test_logits_of_a_real_model(vllms: Any, demo: Demo) -> None:
    """Every position of the seed prompts that ship, at the temperatures of demo and judge."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = demo.home / "checkpoints" / "smollm2-135m-instruct"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [str(p.messages[-1]["content"]) for p in read_prompts(SEEDS).prompts[:8]]
    with torch.no_grad():
        rows = [model(tokenizer(t, return_tensors="pt")["input_ids"]).logits[0] for t in texts]
    logits_BV = torch.cat(rows).float()
    for temperature in (0.7, 1.0, 1.3):
        for p in (0.5, 0.9, 0.99):
            p_B = torch.full((len(logits_BV),), p)
            require_equal(vllms, logits_BV / temperature, None, p_B)


def test_it_stands_in_for_vllms_and_goes_again(vllms: Any) -> None:
    own = vllms.apply_top_k_top_p_pytorch
    for _ in range(2):
        assert nucleus_install.sort_heads_only() == {"sampler": "head", "reason": None}
        assert vllms.apply_top_k_top_p_pytorch.vllms_own is own
    assert nucleus_install.sort_heads_only(on=False) == {"sampler": "vllm", "reason": None}
    assert vllms.apply_top_k_top_p_pytorch is own


def test_a_vllm_that_keeps_other_tokens_keeps_its_own_filter(
    vllms: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keeps_all(logits: Any, *_: Any, **__: Any) -> Any:
        return logits

    monkeypatch.setattr(vllms, "apply_top_k_top_p_pytorch", keeps_all)
    report = nucleus_install.sort_heads_only()
    assert report == {
        "sampler": "vllm",
        "reason": "this vLLM keeps other tokens than ours on a sample",
    }
    assert vllms.apply_top_k_top_p_pytorch is keeps_all


def test_a_vllm_without_that_function_keeps_its_own(
    vllms: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(vllms, "apply_top_k_top_p_pytorch")
    report = nucleus_install.sort_heads_only()
    assert report["sampler"] == "vllm"
    assert "is not the one that is known (AttributeError" in str(report["reason"])


def test_same_seeds_sample_the_same_tokens(vllms: Any) -> None:
    """Through vLLM's own sampler, whose noise depends on the row's seed and the token alone."""
    from vllm.platforms import current_platform

    current_platform.import_kernels()  # as a worker does
    noise = torch.Generator().manual_seed(5)
    logits_BV = torch.randn(64, 49_152, generator=noise) * 3
    p_B = torch.full((64,), 0.9)
    tokens = []
    for on in (True, False):
        nucleus_install.sort_heads_only(on)
        torch.manual_seed(7)
        tokens.append(vllms.TopKTopPSampler().forward_cpu(logits_BV.clone(), {}, None, p_B)[0])
    assert torch.equal(*tokens)
    assert len(set(tokens[0].tolist())) > 8


def test_the_demos_engine_sorts_heads_only(demo: Demo) -> None:
    log = (demo.home / "logs" / "generator.log").read_text()
    assert "top-p sorts the head of each distribution only" in log
