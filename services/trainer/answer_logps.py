"""Log-probabilities of answers' tokens from their logits alone, for devices without Triton.

TRL 1.16 projects every position of a batch there, prompts and padding too, works through the
whole tile a dozen times, and multiplies in float32 on the way back. Here the rows are those of
answers only, and a few rows at a time stay in the processor's cache.

Shapes: N tokens of answers, V words of vocabulary. Knows nothing of models or of pairs.
"""

from dataclasses import dataclass
from typing import Any

import torch

ROWS_AT_ONCE = 32
"""A slice of 32 x 49,152 numbers in float32 is 6 MB."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What is known of each of N tokens; all but `log_probs` without gradient."""

    log_probs: torch.Tensor
    entropy: torch.Tensor
    mean_logits: torch.Tensor
    is_top1: torch.Tensor


def score(logits_NV: torch.Tensor, targets_N: torch.Tensor) -> Scored:
    """log softmax(logits)[target] in nats, computed in float32 at least.

    Beside it the distribution's entropy, the logits' mean, and whether the target is the first
    of the most likely tokens.
    """
    return Scored(*_LogProbs.apply(logits_NV, targets_N))


class _LogProbs(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any, logits_NV: torch.Tensor, targets_N: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        slices = [_score_slice(*rows) for rows in _slices(logits_NV, targets_N)]
        found = [torch.cat(parts) for parts in zip(*slices, strict=True)]
        log_probs, log_norms, entropy, mean_logits, is_top1 = found
        ctx.save_for_backward(logits_NV, targets_N, log_norms)
        ctx.mark_non_differentiable(entropy, mean_logits, is_top1)
        return log_probs, entropy, mean_logits, is_top1

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        """d log p(target) / d logit_v = 1[v = target] - p_v."""
        logits_NV, targets_N, log_norms_N = ctx.saved_tensors
        gradient_NV = torch.empty_like(logits_NV)
        rows = _slices(logits_NV, targets_N, log_norms_N, gradients[0], gradient_NV)
        for logits, targets, log_norms, gradient, into in rows:
            probs = (_wide(logits) - log_norms[:, None]).exp_().mul_(-gradient[:, None])
            probs.scatter_add_(1, targets[:, None], gradient[:, None])
            into.copy_(probs)
        return gradient_NV, None


def _score_slice(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
    wide = _wide(logits)
    largest, first = wide.max(-1)
    exps = (wide - largest[:, None]).exp_()
    sums = exps.sum(-1)
    log_norms = largest + sums.log()
    entropy = log_norms - exps.mul_(wide).sum(-1) / sums
    log_probs = wide.gather(1, targets[:, None])[:, 0] - log_norms
    return log_probs, log_norms, entropy, wide.mean(-1), first == targets


def _slices(*tensors: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
    return list(zip(*(tensor.split(ROWS_AT_ONCE) for tensor in tensors), strict=True))


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
