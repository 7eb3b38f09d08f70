"""Our forward pass over answers against TRL's own, number by number."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)
from trl.trainer.utils import add_fused_lm_head

from services.trainer import answer_logps, answers_forward, layout
from tests.e2e.tiny_model import gradients, worst_difference

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
NAMES = ("log_probs", "entropy", "mean_logits")


def batch_of(pairs: list[tuple[list[int], list[int], list[int]]]) -> dict[str, torch.Tensor]:
    """Prompt, chosen and rejected of each pair, as TRL's collator lays them out."""
    sides = [(p, c) for p, c, _ in pairs] + [(p, r) for p, _, r in pairs]
    width = max(len(p) + len(a) for p, a in sides)
    ids, attended, labels = (torch.full((len(sides), width), v) for v in (0, 0, -100))
    for row, (prompt, answer) in enumerate(sides):
        length = len(prompt) + len(answer)
        ids[row, :length] = torch.tensor(prompt + answer)
        attended[row, :length] = 1
        labels[row, len(prompt) : length] = torch.tensor(answer)
    return {"input_ids": ids, "attention_mask": attended, "labels": labels}


def random_pairs(seed: int = 0) -> dict[str, torch.Tensor]:
    """Prompts and answers of all lengths, among them one token."""
    torch.manual_seed(seed)
    lengths = [(30, 12, 3), (1, 9, 1), (7, 1, 20), (2, 15, 15)]
    return batch_of([tuple(torch.randint(1, 200, (n,)).tolist() for n in one) for one in lengths])  # type: ignore[misc]


def both(model: Any, shares_prompts: bool) -> tuple[Any, Any]:
    """TRL's model, and one with ours before it."""
    ours = copy.deepcopy(model)
    for one in (model, ours):
        add_fused_lm_head(one, outputs=answers_forward.OUTPUTS)
    answers_forward.install(ours, shares_prompts)
    return model, ours


def require_equal(model: Any, ours: Any, batch: dict[str, torch.Tensor]) -> None:
    """Numbers, and gradients of a loss that weighs each token differently."""
    expected, found = (one(**batch, fused_lm_head=True) for one in (model, ours))
    for name in NAMES:
        assert found[name].shape == expected[name].shape
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5)
    assert torch.equal(found.is_top1, expected.is_top1)
    assert torch.equal(found.label_mask, expected.label_mask)
    weights = torch.linspace(-1, 2, expected.log_probs.numel()).view_as(expected.log_probs)
    for outputs in (expected, found):
        (outputs.log_probs * weights).sum().backward()
    assert worst_difference(gradients(ours), gradients(model)) < 1e-5


@pytest.mark.parametrize("shares_prompts", [True, False])
def test_numbers_and_gradients_are_those_of_trl(tiny: Path, shares_prompts: bool) -> None:
    model, ours = both(LlamaForCausalLM.from_pretrained(tiny), shares_prompts)
    require_equal(model, ours, random_pairs())


def test_a_models_own_scale_and_cap_on_logits_are_kept() -> None:
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=200,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        final_logit_softcapping=1.5,
        attn_implementation="eager",
    )
    require_equal(*both(Gemma2ForCausalLM(config).eval(), shares_prompts=False), random_pairs())


def test_without_the_flag_the_model_is_as_it_was(tiny: Path) -> None:
    model, ours = both(LlamaForCausalLM.from_pretrained(tiny), shares_prompts=True)
    batch = random_pairs()
    given = {name: batch[name] for name in ("input_ids", "attention_mask")}
    assert torch.equal(ours(**given).logits, model(**given).logits)


def test_a_shared_row_holds_its_prompt_once() -> None:
    """Prompt 1 2 3, chosen 4 5, rejected 6; and prompt 7, chosen 8, rejected 9 9."""
    batch = batch_of([([1, 2, 3], [4, 5], [6]), ([7], [8], [9, 9])])
    rows = layout.shared(**_named(batch))
    assert rows.ids_BT.tolist() == [[1, 2, 3, 4, 3], [7, 7, 9, 0, 0]]
    assert rows.positions_BT.tolist() == [[0, 1, 2, 3, 2], [0, 0, 1, 0, 0]]
    assert rows.labels_BT.tolist() == [[-100, -100, 4, 5, 6], [8, 9, 9, -100, -100]]
    assert rows.mask_B1TT is not None
    sees = [[n for n, seen in enumerate(row) if seen] for row in rows.mask_B1TT[0, 0].tolist()]
    assert sees == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 4]]


def test_rows_of_their_own_lose_their_last_token_and_needless_padding() -> None:
    batch = batch_of([([1, 2], [3], [4, 5])])
    padded = {n: torch.nn.functional.pad(v, (0, 3), value=0) for n, v in batch.items()}
    padded["labels"][:, 4:] = -100
    rows = layout.alone(**_named(padded))
    assert rows.ids_BT.tolist() == [[1, 2, 3], [1, 2, 4]]
    assert rows.labels_BT.tolist() == [[-100, 3, -100], [-100, 4, 5]]


def _named(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    names = {"ids_ST": "input_ids", "attended_ST": "attention_mask", "labels_ST": "labels"}
    return {ours: batch[theirs] for ours, theirs in names.items()}


@pytest.mark.parametrize(
    ("prompt", "answer", "expected"),
    [(100, 100, True), (1, 100, False), (50, 1000, False), (1000, 10, True)],
)
def test_prompts_are_shared_where_that_is_less_work(
    prompt: int, answer: int, expected: bool
) -> None:
    """With 3,000 seen tokens to a token's products: 50 + 2,000 tokens cost 2,050 + 1,400 in one
    row, and twice 1,050 + 184 in two."""
    batch = batch_of([([1] * prompt, [2] * answer, [3] * answer)])
    found = layout.shared_costs_less(batch["attention_mask"], batch["labels"], 3000)
    assert found is expected


def test_models_whose_layers_differ_take_no_shared_rows() -> None:
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    mistral = {**small, "vocab_size": 50, "num_key_value_heads": 1, "intermediate_size": 64}

    def reason(model: Any) -> str | None:
        return answers_forward.why_not_shared(model, batch_of([([1, 2], [3, 4], [5])]))

    assert reason(MistralForCausalLM(MistralConfig(**mistral, sliding_window=None))) is None
    windowed = reason(MistralForCausalLM(MistralConfig(**mistral, sliding_window=8)))
    assert windowed == "it has layers of sliding_attention"
    gemma = Gemma2ForCausalLM(Gemma2Config(**mistral, head_dim=16))
    assert reason(gemma) == "it has layers of sliding_attention"
    bloom = BloomConfig(vocab_size=50, hidden_size=32, n_layer=1, n_head=2)
    assert "positions" in (reason(BloomForCausalLM(bloom)) or "")


def test_a_model_that_answers_otherwise_in_shared_rows_takes_none(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one would that did not heed the mask."""
    pair = batch_of([([1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11])])
    model, _ = both(LlamaForCausalLM.from_pretrained(tiny), shares_prompts=True)
    assert answers_forward.why_not_shared(model, pair) is None
    monkeypatch.setattr(layout, "_sees", lambda segments_BT: None)
    assert "would differ" in (answers_forward.why_not_shared(model, pair) or "")


def test_log_probs_of_logits_and_their_gradient() -> None:
    """Against torch's own in float64, over more rows than one slice has."""
    torch.manual_seed(0)
    logits = (4 * torch.randn(70, 33, dtype=torch.float64)).requires_grad_()
    targets = torch.randint(0, 33, (70,))
    weights = torch.randn(70, dtype=torch.float64)
    found = answer_logps.score(logits, targets)
    (gradient,) = torch.autograd.grad((found.log_probs * weights).sum(), logits)
    logps = logits.log_softmax(-1)
    expected = logps[torch.arange(70), targets]
    (wanted,) = torch.autograd.grad((expected * weights).sum(), logits)
    torch.testing.assert_close(found.log_probs, expected)
    torch.testing.assert_close(gradient, wanted)
    torch.testing.assert_close(found.entropy, -(logps.exp() * logps).sum(-1))
    torch.testing.assert_close(found.mean_logits, logits.mean(-1))
    assert torch.equal(found.is_top1, logits.argmax(-1) == targets)


@pytest.mark.parametrize("outputs", [("log_probs", "entropy", "is_top1"), answers_forward.OUTPUTS])
def test_trls_kernel_may_be_asked_for_fewer_numbers(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, outputs: tuple[str, ...]
) -> None:
    """The way that GPUs take; TRL's SFT asks for no `mean_logits`."""
    monkeypatch.setattr(answers_forward, "_by_head", answers_forward._by_kernel)
    model = LlamaForCausalLM.from_pretrained(tiny)
    ours = copy.deepcopy(model)
    for one in (model, ours):
        add_fused_lm_head(one, outputs=outputs)
    answers_forward.install(ours)
    batch = random_pairs()
    expected, found = (one(**batch, fused_lm_head=True) for one in (model, ours))
    for name in answers_forward.OUTPUTS:
        if name in outputs:
            assert torch.allclose(found[name].float(), expected[name].float(), atol=1e-5), name
        else:
            assert getattr(found, name) is None
