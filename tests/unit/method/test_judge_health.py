"""When a judge is no longer worth training on, checked by hand."""

import json
from dataclasses import asdict, replace
from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardloop.config import Health
from rewardloop.method.agreement import JudgedRanking, agreement
from rewardloop.method.judge_health import ScoreHealth, beside_humans, collapse, score_health
from rewardloop.records import ScoredResponse


def response(*scores: float | None, text: str = "") -> ScoredResponse:
    parsed = [score for score in scores if score is not None]
    mean = sum(parsed) / len(parsed) if parsed else None
    return ScoredResponse(0, text, mean, scores)


FIT = ScoreHealth(
    num_judgements=100,
    num_scored=100,
    unparsed_rate=0.0,
    top_score_share=0.1,
    mean_score=3.0,
    entropy_bits=2.0,
    tie_rate=0.2,
    judge_spread=0.5,
    length_correlation=0.1,
    length_excess=0.1,
)


def test_two_prompts_by_hand() -> None:
    found = score_health(
        [
            # Means 4 and 4: tied. Spreads: of (5, 3) sqrt(2), of (4,) none.
            [response(5.0, 3.0, text="short"), response(4.0, None, text="much longer")],
            # Means 5, 2 and none: not tied. Spreads: of (5, 5) 0, of (1, 3) sqrt(2).
            # The longer of the two scored ones has the lower mean: rho -1.
            [response(5.0, 5.0, text="a"), response(1.0, 3.0, text="ab"), response(None, None)],
        ]
    )
    assert (found.num_judgements, found.num_scored) == (10, 7)
    assert found.unparsed_rate == 3 / 10
    assert found.top_score_share == 3 / 7
    assert found.mean_score == pytest.approx(26 / 7)
    # Three fives, two threes, a four and a one.
    entropy = 3 / 7 * log2(7 / 3) + 2 / 7 * log2(7 / 2) + 2 * (1 / 7 * log2(7))
    assert found.entropy_bits == pytest.approx(entropy)
    assert found.tie_rate == 1 / 2
    assert found.judge_spread == pytest.approx(2 * 2**0.5 / 3)
    assert found.length_correlation == pytest.approx(-1.0)


@pytest.mark.parametrize(
    ("scores", "entropy_bits"),
    [
        ((4.0, 4.0, 4.0), 0.0),
        ((1.0, 2.0), 1.0),
        ((0.0, 1.0, 2.0, 3.0), 2.0),
        ((0.0, 1.0, 2.0, 3.0, 4.0, 5.0), log2(6)),
        ((2.9, 3.1), 0.0),
    ],
)
def test_entropy_is_in_bits_over_whole_points(
    scores: tuple[float, ...], entropy_bits: float
) -> None:
    found = score_health([[response(*scores)]])
    assert found.entropy_bits == pytest.approx(entropy_bits)


@pytest.mark.parametrize(
    ("means", "tie_rate"),
    [
        ((3.0, 3.0, 3.0), 1.0),
        ((3.0, 3.0, 2.0), 0.0),
        ((3.0, None, 3.0), 1.0),
        ((3.0, None), None),
        ((None, None), None),
        ((3.001, 3.004, 3.009), 1.0),  # by expectation nothing is quite the same
        ((3.0, 3.011), 0.0),
        ((64 / 32, 129 / 64), 0.0),  # the closest that 32 judgements in half points can be
    ],
)
def test_a_tie_needs_two_scored_responses(
    means: tuple[float | None, ...], tie_rate: float | None
) -> None:
    assert score_health([[response(mean) for mean in means]]).tie_rate == tie_rate


@pytest.mark.parametrize(
    ("scores", "share"),
    [
        ((5.0, 4.0), 0.5),
        ((4.51, 4.9, 4.5, 4.0), 0.5),  # by expectation hardly any score is 5
        ((4.49, 0.5), 0.0),
    ],
)
def test_the_highest_scores_are_those_that_round_to_it(
    scores: tuple[float, ...], share: float
) -> None:
    assert score_health([[response(score) for score in scores]]).top_score_share == share


def test_length_counts_where_it_and_the_score_vary() -> None:
    one_length = [response(1.0, text="aa"), response(5.0, text="bb")]
    one_score = [response(3.0, text="a"), response(3.0, text="bb")]
    longer_better = [
        response(1.0, text="a"),
        response(3.0, text="bb"),
        response(None, text="unscored and long"),
        response(2.0, text="ccc"),
    ]
    assert score_health([one_length, one_score]).length_correlation is None
    found = score_health([one_length, one_score, longer_better])
    assert found.length_correlation == pytest.approx(0.5)


LIKES_LENGTH = [[response(1.0, text="a"), response(3.0, text="bb"), response(2.0, text="ccc")]]
"""Spearman 0.5."""


@pytest.mark.parametrize(
    ("rankings", "humans", "num_prompts", "excess"),
    [
        ([], None, 0, 0.5),
        # Of one length, of one rank, or a single response: they say nothing of length.
        ([([0, 1], [5, 5]), ([0, 0], [5, 9]), ([0], [7])], None, 0, 0.5),
        # Humans found the longer better: as much as can be, and then as this judge does.
        ([([0, 1], [9, 5])], 1.0, 1, 0.5),
        ([([2, 0, 1], [1, 2, 3])], 0.5, 1, 0.0),
        # They found the shorter better, so the judge is further from them than from 0.
        ([([0, 1], [5, 9])], -1.0, 1, 1.5),
        ([([0, 1], [9, 5]), ([0, 1], [5, 9]), ([2, 0, 1], [1, 2, 3])], 0.5 / 3, 3, 1 / 3),
    ],
)
def test_a_judge_may_like_length_as_much_as_humans_do(
    rankings: list[tuple[list[int], list[int]]],
    humans: float | None,
    num_prompts: int,
    excess: float,
) -> None:
    found = beside_humans(score_health(LIKES_LENGTH), rankings)
    assert found.length_correlation == pytest.approx(0.5)
    expected = humans if humans is None else pytest.approx(humans)
    assert found.human_length_correlation == expected
    assert found.num_human_prompts == num_prompts
    assert found.length_excess == pytest.approx(excess)


def test_without_a_correlation_of_its_own_a_judge_exceeds_nothing() -> None:
    found = beside_humans(score_health([[response(3.0), response(3.0)]]), [([0, 1], [9, 5])])
    assert (found.human_length_correlation, found.length_excess) == (pytest.approx(1.0), None)
    assert collapse(found, None, Health(max_tie_rate=None, max_length_correlation=0.0)) == []


def test_no_judgement_at_all_counts_as_none_parsed() -> None:
    found = score_health([])
    assert found == ScoreHealth(0, 0, 1.0, None, None, None, None, None, None)
    assert score_health([[ScoredResponse(1, "refused", None)]]) == found
    json.dumps(asdict(found), allow_nan=False)


def test_a_judge_that_never_parses_is_stopped_and_its_missing_figures_trip_nothing() -> None:
    found = score_health([[response(None, None), response(None)]])
    assert found == ScoreHealth(3, 0, 1.0, None, None, None, None, None, None)
    (sentence,) = collapse(found, None, Health(max_length_correlation=0, min_spearman=1))
    assert sentence == (
        "The share of judgements without a score is 1, above health.max_unparsed_rate = 0.5: "
        "read a few of them; raise judging.max_tokens where they are cut off, or set "
        "judging.mode to constrained."
    )


HUMANS_AGAINST = agreement([JudgedRanking((0, 1), (1.0, 2.0))])
"""Pairwise accuracy 0, Spearman -1."""


@pytest.mark.parametrize(
    ("health", "limits", "figure", "key"),
    [
        ({"unparsed_rate": 0.51}, {}, "0.51", "max_unparsed_rate = 0.5"),
        ({"top_score_share": 0.9612345}, {}, "0.9612", "max_top_score_share = 0.95"),
        ({"tie_rate": 1.0}, {}, "1", "max_tie_rate = 0.95"),
        ({"tie_rate": 0.85}, {"max_tie_rate": 0.8}, "0.85", "max_tie_rate = 0.8"),
        (
            {"length_excess": 0.7},
            {"max_length_correlation": 0.6},
            "0.7",
            "max_length_correlation = 0.6",
        ),
        ({}, {"min_pairwise_accuracy": 0.6}, "0", "min_pairwise_accuracy = 0.6"),
        ({}, {"min_spearman": -0.2}, "-1", "min_spearman = -0.2"),
    ],
)
def test_each_limit_has_its_sentence(
    health: dict[str, float], limits: dict[str, float], figure: str, key: str
) -> None:
    (sentence,) = collapse(replace(FIT, **health), HUMANS_AGAINST, Health(**limits))
    side = "above" if key.startswith("max_") else "below"
    assert f" is {figure}, {side} health.{key}: " in sentence
    assert sentence.startswith("The ")
    assert sentence.endswith(".")


def test_a_figure_at_its_limit_is_within_it() -> None:
    at = replace(FIT, unparsed_rate=0.5, top_score_share=0.9, tie_rate=0.8, length_excess=0.6)
    limits = Health(
        max_top_score_share=0.9,
        max_tie_rate=0.8,
        max_length_correlation=0.6,
        min_pairwise_accuracy=0,
        min_spearman=-1,
    )
    assert collapse(at, HUMANS_AGAINST, limits) == []


def test_without_held_out_rankings_the_humans_are_not_asked() -> None:
    limits = Health(min_pairwise_accuracy=1, min_spearman=1)
    assert collapse(FIT, None, limits) == []
    assert collapse(FIT, agreement([]), limits) == []
    assert len(collapse(FIT, HUMANS_AGAINST, limits)) == 2


def test_limits_of_none_ask_nothing() -> None:
    broken = replace(FIT, unparsed_rate=1.0, top_score_share=1.0, tie_rate=1.0, length_excess=1.0)
    nothing = Health(max_unparsed_rate=None, max_top_score_share=None, max_tie_rate=None)
    assert collapse(broken, HUMANS_AGAINST, nothing) == []
    assert len(collapse(broken, HUMANS_AGAINST, Health())) == 3


@given(st.lists(st.lists(st.lists(st.none() | st.integers(0, 5), max_size=3), max_size=4)))
def test_any_judgements_have_a_health(prompts: list[list[list[int | None]]]) -> None:
    found = score_health([[response(*scores) for scores in group] for group in prompts])
    assert 0 <= found.num_scored <= found.num_judgements
    assert 0 <= found.unparsed_rate <= 1
    assert (found.mean_score is None) == (found.num_scored == 0)
    assert found.entropy_bits is None or 0 <= found.entropy_bits <= log2(6) + 1e-9
    json.dumps(asdict(found), allow_nan=False)
