"""What top-p and top-k keep of each row: by hand, and by sorting the whole row as vLLM does.

`tests/e2e/test_nucleus.py` asks vLLM's own code, on a real model's logits too.
"""

import math
from typing import Any

import pytest
import torch

from services.generator.nucleus import HEADS, keep_nucleus

NUM_TOKENS = 8192


def no_sort(*_: Any) -> Any:
    raise AssertionError("the whole vocabulary was sorted")


def by_sorting(logits_BV: Any, k_B: Any, p_B: Any) -> Any:
    """What vLLM 0.32 does on a CPU, written out, with a stable sort."""
    values_BV, ids_BV = torch.sort(logits_BV, dim=-1, stable=True)
    if k_B is not None:
        kth_B1 = values_BV.gather(1, (values_BV.shape[1] - k_B.long())[:, None])
        values_BV = values_BV.masked_fill(values_BV < kth_B1, -torch.inf)
    dropped_BV = values_BV.softmax(-1).cumsum(-1) <= 1 - p_B[:, None]
    dropped_BV[:, -1] = False
    values_BV = values_BV.masked_fill(dropped_BV, -torch.inf)
    return torch.empty_like(logits_BV).scatter_(1, ids_BV, values_BV)


def row(probabilities: dict[int, float]) -> torch.Tensor:
    """Logits of one row that give these probabilities to these ids, and nothing to others."""
    logits_V = torch.full((NUM_TOKENS,), -torch.inf)
    for token, probability in probabilities.items():
        logits_V[token] = math.log(probability)
    return logits_V


def kept(logits_V: torch.Tensor, *, p: float = 1.0, k: int | None = None) -> list[int]:
    """The ids that stay in a row, found in its head."""
    k_B = None if k is None else torch.tensor([k], dtype=torch.int32)
    found = keep_nucleus(logits_V[None].clone(), k_B, torch.tensor([p]), no_sort)
    return sorted((found[0] > -torch.inf).nonzero()[:, 0].tolist())


FOUR = {7: 0.5, 3: 0.25, 900: 0.15, 4000: 0.1}


@pytest.mark.parametrize(
    ("p", "tokens"),
    [
        (0.4, [7]),
        (0.6, [3, 7]),
        (0.74, [3, 7]),
        (0.76, [3, 7, 900]),
        (0.95, [3, 7, 900, 4000]),
        (1e-9, [7]),
        (0.0, [7]),
        (1.0, [3, 7, 900, 4000]),
    ],
)
def test_tokens_stay_until_their_sum_reaches_p(p: float, tokens: list[int]) -> None:
    assert kept(row(FOUR), p=p) == tokens


def test_top_p_counts_what_top_k_left() -> None:
    """Of 0.5, 0.25, 0.15 and 0.1 the first two are 2/3 and 1/3 of what k = 2 leaves."""
    assert kept(row(FOUR), p=0.6) == [3, 7]
    assert kept(row(FOUR), p=0.6, k=2) == [7]
    assert kept(row(FOUR), p=0.7, k=2) == [3, 7]
    assert kept(row(FOUR), p=1.0, k=3) == [3, 7, 900]
    assert kept(row(FOUR), p=0.95, k=1) == [7]


def test_the_kth_logits_equals_stay() -> None:
    equals = {1: 0.4, 2: 0.2, 3: 0.2, 4: 0.2}
    assert kept(row(equals), p=1.0, k=2) == [1, 2, 3, 4]


def test_of_equals_at_the_boundary_the_lowest_ids_stay() -> None:
    """0.5 and 26 of the fifty 0.01 are needed for p = 0.755."""
    noise = torch.Generator().manual_seed(3)
    equals = torch.randperm(NUM_TOKENS - 1, generator=noise)[:50].tolist()
    logits_V = row(dict.fromkeys(equals, 0.01) | {NUM_TOKENS - 1: 0.5})
    assert kept(logits_V, p=0.755) == [*sorted(equals)[:26], NUM_TOKENS - 1]


def test_more_equals_than_the_head_holds_are_left_to_the_sort() -> None:
    logits_V = torch.zeros(NUM_TOKENS)
    with pytest.raises(AssertionError, match="whole vocabulary"):
        kept(logits_V, p=0.001)


def test_what_stays_is_unchanged() -> None:
    logits_V = row(FOUR)
    found = keep_nucleus(logits_V[None].clone(), None, torch.tensor([0.6]), no_sort)
    assert torch.equal(found[0][[7, 3]], logits_V[[7, 3]])


@pytest.mark.parametrize("size", HEADS)
def test_a_nucleus_larger_than_a_head_goes_on(size: int) -> None:
    """`size` equally likely tokens and one of a little less: p takes in all of the equals."""
    logits_V = torch.full((NUM_TOKENS,), -torch.inf)
    logits_V[:size] = 0.0
    logits_V[size] = -0.5
    sorted_rows: list[int] = []

    def sort(logits: Any, k: Any, p: Any) -> Any:
        sorted_rows.append(len(logits))
        return by_sorting(logits, k, p)

    p_B = torch.tensor([0.9999 * size / (size + 1)])
    found = keep_nucleus(logits_V[None].clone(), None, p_B, sort)
    assert (found[0] > -torch.inf).sum() == size
    assert sorted_rows == ([1] if size == HEADS[-1] else [])


def test_only_rows_that_need_it_are_sorted() -> None:
    flat_V, peaked_V = torch.arange(NUM_TOKENS) / NUM_TOKENS, row(FOUR)
    seen: list[torch.Tensor] = []

    def sort(logits: Any, k: Any, p: Any) -> Any:
        seen.append(logits.clone())
        return by_sorting(logits, k, p)

    logits_BV = torch.stack([peaked_V, flat_V, peaked_V])
    found = keep_nucleus(logits_BV.clone(), None, torch.tensor([0.6, 0.9, 0.4]), sort)
    assert torch.equal(torch.cat(seen), flat_V[None])
    assert [int((r > -torch.inf).sum()) for r in found[[0, 2]]] == [2, 1]
    assert torch.equal(found[1], by_sorting(flat_V[None].clone(), None, torch.tensor([0.9]))[0])


def test_rows_without_any_filter_are_neither_sorted_nor_changed() -> None:
    flat_V = torch.arange(NUM_TOKENS) / NUM_TOKENS
    logits_BV = torch.stack([flat_V, row(FOUR)])
    found = keep_nucleus(logits_BV.clone(), None, torch.tensor([1.0, 0.6]), no_sort)
    assert torch.equal(found[0], flat_V)
    assert (found[1] > -torch.inf).nonzero()[:, 0].tolist() == [3, 7]


def test_top_k_alone_and_small_vocabularies_and_other_dtypes_are_vllms() -> None:
    logits_BV, p_B = torch.randn(2, NUM_TOKENS), torch.tensor([0.5, 0.5])
    calls: list[str] = []

    def sort(logits: Any, k: Any, p: Any) -> Any:
        calls.append(str(logits.dtype))
        return logits

    keep_nucleus(logits_BV, torch.tensor([5, 5]), None, sort)
    keep_nucleus(logits_BV[:, : HEADS[-1]], None, p_B, sort)
    keep_nucleus(logits_BV.bfloat16(), None, p_B, sort)
    assert calls == ["torch.float32", "torch.float32", "torch.bfloat16"]


@pytest.mark.parametrize("odd", [torch.nan, -torch.inf])
def test_rows_that_are_no_distribution_are_left_to_the_sort(odd: float) -> None:
    logits_BV = torch.stack([torch.full((NUM_TOKENS,), odd), row(FOUR)])
    p_B = torch.tensor([0.6, 0.6])
    found = keep_nucleus(logits_BV.clone(), None, p_B, by_sorting)
    expected = by_sorting(logits_BV.clone(), None, p_B)
    assert torch.equal(found[0].isnan(), expected[0].isnan())
    assert (found[1] > -torch.inf).nonzero()[:, 0].tolist() == [3, 7]


def random_logits(seed: int, num_rows: int = 12) -> torch.Tensor:
    """Rows of every width, from nearly one-hot to flat."""
    noise = torch.Generator().manual_seed(seed)
    widths_B1 = torch.linspace(0.05, 8, num_rows)[:, None]
    return torch.randn(num_rows, NUM_TOKENS, generator=noise) * widths_B1


@pytest.mark.parametrize("with_top_k", [False, True])
@pytest.mark.parametrize("rounded", [False, True], ids=["float32", "ties of bfloat16"])
@pytest.mark.parametrize("p", [0.05, 0.5, 0.9, 0.99, 1.0])
def test_as_many_of_each_value_stay_as_with_the_whole_sort(
    p: float, rounded: bool, with_top_k: bool
) -> None:
    logits_BV = random_logits(1)
    if rounded:
        logits_BV = logits_BV.bfloat16().float()
    k_B = torch.tensor([1, 2, 20, 127, 128, 129, 300, NUM_TOKENS] * 2)[:12] if with_top_k else None
    p_B = torch.full((12,), p)
    p_B[5] = 1.0  # a request without top-p in the same batch
    found_BV = keep_nucleus(logits_BV.clone(), k_B, p_B, by_sorting)
    expected_BV = by_sorting(logits_BV.clone(), k_B, p_B)
    assert torch.equal(found_BV.sort(-1).values, expected_BV.sort(-1).values)
