"""Which rows share a forward pass."""

import pytest

from services.trainer.grouping import Limit, split


def test_rows_of_like_length_share_a_pass_the_longest_first() -> None:
    assert split([5, 90, 7, 100], Limit(num_rows=2)) == [[3, 1], [2, 0]]


def test_as_many_tokens_as_fit_padding_counted() -> None:
    """100 + padded 90 are 200 tokens; 60, 50 and 40 are 180 once padded."""
    assert split([50, 90, 60, 100, 40], Limit(num_tokens=200)) == [[3, 1], [2, 0, 4]]
    assert split([50, 90, 60, 100, 40], Limit(num_tokens=199)) == [[3], [1, 2], [0, 4]]


def test_a_row_that_is_larger_than_the_limit_goes_alone() -> None:
    assert split([300, 10, 10], Limit(num_tokens=40)) == [[0], [1, 2]]


@pytest.mark.parametrize("limit", [Limit(), Limit(num_rows=9), Limit(num_tokens=1000)])
def test_without_a_limit_that_binds_there_is_one_pass(limit: Limit) -> None:
    assert split([3, 1, 2], limit) == [[0, 2, 1]]


def test_equal_lengths_keep_their_order() -> None:
    """So that a training that goes on makes the same passes."""
    assert split([4, 4, 4, 4], Limit(num_rows=3)) == [[0, 1, 2], [3]]
