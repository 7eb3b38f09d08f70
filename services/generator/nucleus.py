"""Nucleus (top-p) filtering on a CPU that sorts only the head of each distribution.

Owns `keep_nucleus`, which stands in for vLLM's `apply_top_k_top_p_pytorch` (0.32,
`v1/sample/ops/topk_topp_sampler.py`). That sorts every row's whole vocabulary; for SmolLM2's
49,152 tokens this takes as long as everything else that a token costs. Here the largest
logits of a row are taken (`HEADS`), and where they hold the nucleus nothing else of the row
needs an order. A row whose nucleus is larger goes to vLLM's own function.

What is kept, as vLLM keeps it:

- top-k first: logits below the k-th largest go, its equals stay, and what stays sums to 1;
- then top-p: a token goes where the probabilities up to and including its own, summed from
  the smallest, are at most 1 - p; the largest always stays;
- of equal logits at the boundary as many stay as vLLM keeps. Which ones is left to chance by
  vLLM (its sort is not stable); here those with the lowest token ids stay;
- a row without top-p and top-k stays as it is. (vLLM drops there what has a probability of 0 in
  float32, if another row of the batch has top-p.)

vLLM sums from the smallest probability and we from the largest, and floating sums depend on
their order: the kept sets can differ where the sum at the boundary is within 1e-6 of p.

Does not know requests, engines or how it is called (see `nucleus_install`).

Shapes: B rows of a batch, V tokens of the vocabulary, H tokens of the head.
"""

from collections.abc import Callable
from typing import Any

import torch

HEADS = (128, 4096)
"""So many of the largest logits are tried, one size after the other."""

Sort = Callable[[Any, Any, Any], Any]
"""vLLM's own function: logits (B, V), k (B) or None, p (B); returns the filtered logits."""


def keep_nucleus(logits_BV: Any, k_B: Any, p_B: Any, sort: Sort) -> Any:
    """The logits with -inf where top-k and top-p drop a token. Changes `logits_BV`, as vLLM does.

    `k_B` is V and `p_B` is 1 in rows that do not filter so; `k_B` is None where none does.
    """
    num_tokens = logits_BV.shape[1]
    if p_B is None or logits_BV.dtype != torch.float32 or num_tokens <= HEADS[-1]:
        return sort(logits_BV, k_B, p_B)
    free_B = p_B >= 1
    if k_B is not None:
        free_B = free_B & (k_B >= num_tokens)
    if not free_B.any():
        return _by_head(logits_BV, k_B, p_B, sort, HEADS)
    filtered = (~free_B).nonzero()[:, 0]
    if len(filtered):
        kept = _by_head(*_rows(filtered, logits_BV, k_B, p_B), sort, HEADS)
        logits_BV[filtered] = kept
    return logits_BV


def _by_head(logits_BV: Any, k_B: Any, p_B: Any, sort: Sort, heads: tuple[int, ...]) -> Any:
    """Rows whose nucleus the first head does not hold are tried with the next."""
    if not heads:
        return sort(logits_BV, k_B, p_B)
    values_BH, ids_BH, complete_B = _head(logits_BV, k_B, p_B, heads[0])
    open_rows = (~complete_B).nonzero()[:, 0]
    if len(open_rows) == len(logits_BV):
        return _by_head(logits_BV, k_B, p_B, sort, heads[1:])
    if len(open_rows):
        kept = _by_head(*_rows(open_rows, logits_BV, k_B, p_B), sort, heads[1:])
    logits_BV.fill_(-torch.inf).scatter_(1, ids_BH, values_BH)
    if len(open_rows):
        logits_BV[open_rows] = kept
    return logits_BV


def _head(logits_BV: Any, k_B: Any, p_B: Any, size: int) -> tuple[Any, Any, Any]:
    """The `size` largest logits, those that go at -inf, their ids, and whether that is all.

    It is all where the smallest kept logit is larger than the smallest of the head: then every
    token outside, its equals among them, comes after what is kept.
    """
    values_BH, ids_BH = _largest(logits_BV, size)
    last_B = values_BH[:, -1].clone()
    if k_B is None:
        probs_BH = _of_all(logits_BV, ids_BH)
        complete_B = torch.ones_like(p_B, dtype=torch.bool)
    else:
        probs_BH, complete_B = _limited(logits_BV, values_BH, ids_BH, k_B)
    kept_BH = _kept(probs_BH, p_B)
    smallest_B = values_BH.masked_fill(~kept_BH, torch.inf).amin(-1)
    values_BH.masked_fill_(~kept_BH, -torch.inf)
    return values_BH, ids_BH, complete_B & (last_B < smallest_B)


def _largest(logits_BV: Any, size: int) -> tuple[Any, Any]:
    """The largest logits in descending order, equals by ascending id, and their ids."""
    values_BH, ids_BH = logits_BV.topk(size, sorted=False)
    ids_BH, order_BH = ids_BH.sort()
    values_BH, order_BH = values_BH.gather(1, order_BH).sort(descending=True, stable=True)
    return values_BH, ids_BH.gather(1, order_BH)


def _limited(logits_BV: Any, values_BH: Any, ids_BH: Any, k_B: Any) -> tuple[Any, Any]:
    """Drop in `values_BH` what top-k drops.

    Returns the head's probabilities, and in which rows it holds all that top-k keeps.
    """
    size = values_BH.shape[1]
    last_B = values_BH[:, -1].clone()
    limited_B = k_B < logits_BV.shape[1]
    kth_B1 = values_BH.gather(1, (k_B.long() - 1).clamp(max=size - 1)[:, None])
    values_BH.masked_fill_(limited_B[:, None] & (values_BH < kth_B1), -torch.inf)
    probs_BH = values_BH.softmax(-1)
    if not limited_B.all():
        probs_BH = torch.where(limited_B[:, None], probs_BH, _of_all(logits_BV, ids_BH))
    return probs_BH, ~limited_B | (last_B < kth_B1[:, 0])


def _of_all(logits_BV: Any, ids_BH: Any) -> Any:
    """The head's probabilities among all tokens.

    Softmax adds up a row in long runs of float32, which left sums 6e-6 away from 1 where the
    vocabulary was 151,936; `sum` adds by halves, so its result mends that.
    """
    probs_BV = logits_BV.softmax(-1)
    return probs_BV.gather(1, ids_BH) / probs_BV.sum(-1, keepdim=True)


def _kept(probs_BH: Any, p_B: Any) -> Any:
    """What top-p keeps of probabilities in descending order.

    With S_i the sum before token i, that from the smallest up to it is 1 - S_i: it stays where
    1 - S_i > 1 - p. The differences are taken as vLLM takes them, in float32 for 1 - p.
    """
    before_BH = probs_BH.double().cumsum(-1) - probs_BH
    kept_BH = (1 - before_BH) > (1 - p_B)[:, None]
    kept_BH |= (p_B >= 1)[:, None]  # where rounding would let the sum reach 1 too early
    kept_BH &= probs_BH > 0
    kept_BH[:, 0] = True
    return kept_BH


def _rows(rows: Any, logits_BV: Any, k_B: Any, p_B: Any) -> tuple[Any, Any, Any]:
    return logits_BV[rows], None if k_B is None else k_B[rows], p_B[rows]
