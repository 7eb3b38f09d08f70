"""TRL's DPO loss and gradients, as we ask for them, against the formula in float64."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import logsigmoid

from rewardloop.config import Training
from services.trainer import dpo
from tests.e2e.tiny_model import (
    gradients,
    in_float64,
    response_logprobs,
    user,
    worst_difference,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
BETA = 0.3
TEXTS = [
    ("Say yes.", "Yes, gladly.", "No, never ever, not for all the tea."),
    ("Two plus two?", "Four, as everybody will have learnt at school.", "Five."),
    ("Hi", "Hello!", "Go."),
]


def shift(model: Any) -> None:
    """Move the policy away from its reference, the same way in each precision."""
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_((0.03 * torch.randn(weight.shape)).to(weight.dtype))


def by_trl(
    tiny: Path, output: Path, loss: dict[str, Any], smoothing: float
) -> tuple[float, dict[str, torch.Tensor]]:
    config = Training(loss=loss, beta=BETA, dropout=0.0, micro_batch_size=3, batch_size=3)
    task = {
        "base": str(tiny),
        "output": str(output),
        "config": config.model_dump(mode="json"),
        "seed": 1,
        "label_smoothing": smoothing,
        "pairs": [
            {
                "prompt": user(prompt),
                "chosen": [{"role": "assistant", "content": chosen}],
                "rejected": [{"role": "assistant", "content": rejected}],
            }
            for prompt, chosen, rejected in TEXTS
        ],
    }
    trainer = dpo.build(task, io.StringIO())
    shift(trainer.model)
    (batch,) = trainer.get_train_dataloader()
    total = trainer.compute_loss(trainer.model, batch)
    total.backward()
    return total.item(), gradients(trainer.model)


def by_hand(
    tiny: Path, weight: float, smoothing: float
) -> tuple[float, dict[str, torch.Tensor], list[float]]:
    """Loss, gradients, and h of each pair (see `dpo.loss_arguments`)."""
    reference, policy = in_float64(tiny), in_float64(tiny)
    shift(policy)
    hs, chosen_tokens = [], []
    for prompt, chosen, rejected in TEXTS:
        of_chosen = response_logprobs(policy, prompt, chosen)
        chosen_ratio = of_chosen.sum() - response_logprobs(reference, prompt, chosen).sum()
        rejected_ratio = (
            response_logprobs(policy, prompt, rejected).sum()
            - response_logprobs(reference, prompt, rejected).sum()
        )
        hs.append(BETA * (chosen_ratio - rejected_ratio))
        chosen_tokens.append(of_chosen)
    losses = [-(1 - smoothing) * logsigmoid(h) - smoothing * logsigmoid(-h) for h in hs]
    total = torch.stack(losses).mean() - weight * torch.cat(chosen_tokens).mean()
    total.backward()
    return total.item(), gradients(policy), [h.item() for h in hs]


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize("smoothing", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_loss_and_gradients_are_the_formulas(
    tiny: Path, tmp_path: Path, weight: float, smoothing: float
) -> None:
    loss = {"kind": "dpo_likelihood", "weight": weight} if weight else {"kind": "dpo"}
    expected, expected_gradients, hs = by_hand(tiny, weight, smoothing)
    assert max(hs) > 0.5, "no pair is in the right order"
    assert min(hs) < -0.5, "no pair is in the wrong order"
    found, found_gradients = by_trl(tiny, tmp_path, loss, smoothing)
    assert found == pytest.approx(expected, rel=1e-5)
    assert worst_difference(found_gradients, expected_gradients) < 1e-4


@pytest.mark.parametrize("smoothing", [-0.1, 0.51, 1.0])
def test_a_smoothing_that_turns_labels_around_is_refused(smoothing: float) -> None:
    with pytest.raises(ValueError, match="label_smoothing"):
        dpo.loss_arguments(Training().model_dump(mode="json"), smoothing)


def test_sft_on_winners_is_no_dpo_loss() -> None:
    config = Training(loss={"kind": "sft_winners"}).model_dump(mode="json")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sft_winners"):
        dpo.loss_arguments(config)
