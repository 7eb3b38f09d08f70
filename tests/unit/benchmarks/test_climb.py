"""The climb benchmark's statistics."""

import numpy as np
import pytest

from benchmarks.climb import interval


def test_seeds_that_tell_the_same_narrow_no_interval() -> None:
    """All seeds answer the same prompts: what these happen to be is no less a matter of
    chance for being asked three times."""
    one = np.random.default_rng(5).normal(1.0, 1.0, size=(1, 40))
    assert interval(np.tile(one, (3, 1))) == pytest.approx(interval(one), abs=0.03)


def test_the_interval_of_one_seed_is_that_of_a_mean() -> None:
    gains = np.random.default_rng(6).normal(0.5, 1.0, size=(1, 400))
    low, high = interval(gains)
    half = 1.96 * gains.std() / 20
    assert (low, high) == pytest.approx((gains.mean() - half, gains.mean() + half), abs=0.01)


def test_seeds_that_differ_widen_it() -> None:
    seeds = np.array([[0.0] * 40, [1.0] * 40, [2.0] * 40])
    assert interval(seeds) == (0.0, 2.0)
