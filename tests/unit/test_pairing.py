"""Best mean score against worst, checked by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardloop.config import Pairing
from rewardloop.pairing import best_against_worst
from rewardloop.records import ScoredResponse

ANY = Pairing()


def responses(*scores: float | None) -> list[ScoredResponse]:
    """Responses 1, 2, ... with these scores."""
    return [ScoredResponse(i, f"answer {i}", score) for i, score in enumerate(scores, start=1)]


def ids(found: list[ScoredResponse], config: Pairing = ANY) -> tuple[int, int] | None:
    pair = best_against_worst(found, config)
    return (pair.chosen.response_id, pair.rejected.response_id) if pair else None


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ((1.0, 4.0, 2.0, 3.0), (2, 1)),
        ((5.0, 0.0), (1, 2)),
        ((0.0, 5.0), (2, 1)),
        ((3.0, 3.0, 3.0, 3.0), None),
        ((4.0, 4.0, 1.0, 1.0), (1, 3)),
        ((1.0, 1.0, 4.0, 4.0), (3, 1)),
        ((None, 4.0, 2.0, None), (2, 3)),
        ((None, 4.0, None, None), None),
        ((None, None, None, None), None),
        ((None, 3.0, 3.0), None),
        ((0.0, None), None),
        ((0.0, None, 1.0), (3, 1)),
        ((3.3333333333333335, 3.6666666666666665), (2, 1)),
        ((), None),
        ((4.0,), None),
    ],
)
def test_golden_pairs(scores: tuple[float | None, ...], expected: tuple[int, int] | None) -> None:
    assert ids(responses(*scores)) == expected


@pytest.mark.parametrize(
    ("margin", "expected"), [(0.0, (1, 2)), (1.4, (1, 2)), (1.5, None), (2.0, None)]
)
def test_a_pair_needs_more_than_the_margin(margin: float, expected: tuple[int, int] | None) -> None:
    assert ids(responses(3.5, 2.0), Pairing(min_margin=margin)) == expected


def test_a_pair_knows_its_texts_and_margin() -> None:
    pair = best_against_worst(responses(1.0, 3.5, 2.0), ANY)
    assert pair is not None
    assert (pair.chosen.text, pair.rejected.text, pair.margin) == ("answer 2", "answer 1", 2.5)


SCORES = st.lists(st.none() | st.integers(0, 15).map(lambda thirds: thirds / 3), max_size=8)


@given(SCORES.flatmap(lambda scores: st.permutations(responses(*scores))))
def test_the_order_of_the_responses_changes_nothing(shuffled: list[ScoredResponse]) -> None:
    in_order = sorted(shuffled, key=lambda response: response.response_id)
    assert best_against_worst(shuffled, ANY) == best_against_worst(in_order, ANY)


@given(SCORES, st.sampled_from([0.0, 0.5, 2.0]))
def test_there_is_a_pair_exactly_where_scores_lie_apart(
    scores: list[float | None], margin: float
) -> None:
    pair = best_against_worst(responses(*scores), Pairing(min_margin=margin))
    known = [score for score in scores if score is not None]
    apart = len(known) > 1 and max(known) - min(known) > margin
    assert (pair is not None) == apart
    if pair is not None:
        assert (pair.chosen.score, pair.rejected.score) == (max(known), min(known))
