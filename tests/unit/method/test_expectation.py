"""Verdicts by expectation, by hand.

Tests `rewardloop.method.expectation`.
"""

from math import inf, log, nan
from typing import Any

import pytest

from rewardloop.method.expectation import (
    MIN_MASS,
    Distribution,
    NoLogprobs,
    expected_score,
    points_of,
    preferences_of,
    preferred,
    probability_of_first,
)
from rewardloop.records import Preference


def choice(*told: tuple[str, float], sampled: str | None = None) -> dict[str, Any]:
    """A choice in OpenAI's form, whose most probable next tokens are these."""
    top = [{"token": token, "logprob": log(p), "bytes": None} for token, p in told]
    first = next((entry for entry in top if entry["token"] == sampled), top[0])
    return {"index": 0, "logprobs": {"content": [{**first, "top_logprobs": top}]}}


def test_a_score_is_the_mean_over_the_points() -> None:
    found = points_of(choice(("4", 0.5), ("2", 0.25), ("5", 0.25)))
    assert found.probabilities == (0, 0, 0.25, 0, 0.5, 0.25)
    assert found.mass == 1
    assert expected_score(found) == 3.75  # 2/4 + 4/2 + 5/4


def test_what_is_no_score_is_left_out_and_told() -> None:
    found = points_of(choice(("7", 0.4), ("1", 0.3), ("3", 0.1), ("The", 0.1), ("45", 0.1)))
    assert found.probabilities == (0, 0.3, 0, 0.1, 0, 0)
    assert found.mass == 0.4
    assert expected_score(found) == 1.5  # (1 * 0.3 + 3 * 0.1) / 0.4


@pytest.mark.parametrize("token", ["4", " 4", "\u01204", "\u25814", "4\n", "  4"])
def test_a_token_spells_a_score_whatever_blanks_it_has(token: str) -> None:
    assert points_of(choice((token, 0.75))).probabilities == (0, 0, 0, 0, 0.75, 0)


@pytest.mark.parametrize("token", ["44", "-4", "4.", "\u0664", "", " ", "four", "4/5"])
def test_another_token_spells_none(token: str) -> None:
    assert points_of(choice((token, 0.75), ("x", 0.1))).mass == 0


def test_two_tokens_of_one_text_count_both() -> None:
    """As those that a tokenizer has with a blank before them and without one."""
    assert points_of(choice(("4", 0.5), ("4", 0.25), (" 4", 0.125))).mass == 0.875


def test_the_sampled_token_counts_where_it_is_none_of_the_most_probable() -> None:
    given = choice(("x", 0.5), ("y", 0.25))
    given["logprobs"]["content"][0] |= {"token": "3", "logprob": log(0.125)}
    assert points_of(given).probabilities == (0, 0, 0, 0.125, 0, 0)
    given = choice(("3", 0.5), ("y", 0.25))
    assert points_of(given).mass == 0.5  # and not twice


def test_a_preference_is_spelled_by_a_digit() -> None:
    found = preferences_of(choice(("2", 0.6), (" 1", 0.2), ("first", 0.1), ("12", 0.1)))
    assert found.probabilities == (0.2, 0.6)
    assert (found.mass, probability_of_first(found)) == (0.8, 0.25)


@pytest.mark.parametrize(
    ("probability", "preference"),
    [(0.51, Preference.FIRST), (0.49, Preference.SECOND), (0.5, Preference.TIE)],
)
def test_the_more_probable_side_is_preferred(probability: float, preference: Preference) -> None:
    assert preferred(probability) is preference


def test_too_little_mass_is_no_verdict() -> None:
    assert Distribution((MIN_MASS, 0, 0, 0, 0, 0)).is_enough
    assert not Distribution((MIN_MASS - 1e-6, 0, 0, 0, 0, 0)).is_enough
    assert not Distribution((0.0,) * 6).is_enough


BROKEN: list[Any] = [
    {},
    {"logprobs": None},
    {"logprobs": {"content": None}},
    {"logprobs": {"content": []}},
    {"logprobs": {"content": [{"token": "4", "logprob": -0.1}]}},
    {"logprobs": {"content": [{"token": "4", "logprob": -0.1, "top_logprobs": None}]}},
    {"logprobs": {"content": [{"token": "4", "logprob": None, "top_logprobs": []}]}},
    {"logprobs": {"content": [{"token": "4", "logprob": "much", "top_logprobs": []}]}},
    {"logprobs": {"content": [{"token": "4", "logprob": nan, "top_logprobs": []}]}},
    {"logprobs": {"content": [{"token": "4", "logprob": -inf, "top_logprobs": []}]}},
    {"logprobs": {"content": "4"}},
    {"logprobs": {"tokens": ["4"], "token_logprobs": [-0.1]}},  # the older route's form
    {"logprobs": []},
]


@pytest.mark.parametrize("given", BROKEN, ids=str)
def test_a_choice_without_log_probabilities_is_told(given: Any) -> None:
    with pytest.raises(NoLogprobs):
        points_of(given)


def test_a_server_without_alternatives_gives_the_sampled_token() -> None:
    given = {"logprobs": {"content": [{"token": "4", "logprob": log(0.75), "top_logprobs": []}]}}
    assert points_of(given).probabilities == (0, 0, 0, 0, 0.75, 0)


def test_rounding_never_makes_more_than_there_is() -> None:
    given = {"logprobs": {"content": [{"token": "4", "logprob": 1e-7, "top_logprobs": []}]}}
    assert points_of(given).probabilities == (0, 0, 0, 0, 1, 0)
    assert expected_score(points_of(given)) == 4
