"""Pair policies: hand-written cases in golden/pairs.json, laws, and agreement checked by hand."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from rewardloop.config import (
    Anchored,
    BestWorst,
    Consistency,
    LengthControl,
    Pairing,
    PairPolicy,
    SeveralPairs,
)
from rewardloop.method.pairing import PairedPrompt, Unpaired, consistency, label_smoothing, pair
from rewardloop.records import PreferencePair, ScoredResponse, mean_score

CASES = json.loads((Path(__file__).parents[1] / "golden" / "pairs.json").read_text())["cases"]
MARGINS_IN_THIRDS = st.sampled_from([0, 1, 1.5, 6])
"""Three scores from 0 to 5 have means in thirds; so counted, they compare exactly."""


def responses(rows: Sequence[tuple[int, int, float | None]]) -> list[ScoredResponse]:
    """From rows of id, number of characters and mean score, not rounded yet; each id has a
    letter, and so a text, of its own."""
    return [
        ScoredResponse(id_, chr(0x4E00 + id_) * num_characters, mean_score([score]))
        for id_, num_characters, score in rows
    ]


def ids(found: PairedPrompt) -> list[list[int]]:
    return [[p.chosen.response_id, p.rejected.response_id] for p in found.pairs]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_golden_pairs(case: dict[str, Any]) -> None:
    config = Pairing.model_validate(
        {"policy": case["policy"], "min_margin": case.get("min_margin", 0)}
    )
    found = pair(responses(case["responses"]), config, responses(case.get("anchors", [])))
    assert (ids(found), found.unpaired) == (case.get("pairs", []), case.get("unpaired"))


def test_the_golden_cases_see_every_policy_and_every_reason() -> None:
    kinds = {policy.model_fields["kind"].default for policy in PairPolicy.__args__}
    assert {case["policy"]["kind"] for case in CASES} == kinds
    by_text = {Unpaired.NO_TEXT, Unpaired.CUT, Unpaired.SAME_TEXT}  # in test_pair_texts
    seen = {case["unpaired"] for case in CASES if "unpaired" in case}
    assert seen == set(Unpaired) - by_text


def test_a_pair_knows_its_texts_and_margin() -> None:
    found = pair(responses([(1, 3, 1.0), (2, 5, 3.5), (3, 4, 2.0)]), Pairing())
    (best_worst,) = found.pairs
    assert (len(best_worst.chosen.text), len(best_worst.rejected.text)) == (5, 3)
    assert best_worst.margin == 2.5


def test_a_prompt_has_pairs_or_a_reason() -> None:
    low, high = responses([(1, 1, 0.0), (2, 1, 1.0)])
    with pytest.raises(AssertionError):
        PairedPrompt((), None)
    with pytest.raises(AssertionError):
        PairedPrompt((PreferencePair(high, low),), Unpaired.TIED)


POLICIES = st.sampled_from(
    [
        BestWorst(),
        LengthControl(rho=0.0),
        LengthControl(rho=0.2),
        LengthControl(rho=0.49),
        SeveralPairs(max_pairs_per_prompt=1),
        SeveralPairs(max_pairs_per_prompt=5),
        Consistency(),
        Anchored(),
    ]
)
PAIRINGS = st.builds(
    Pairing, min_margin=MARGINS_IN_THIRDS.map(lambda thirds: thirds / 3), policy=POLICIES
)
SCORES = st.none() | st.integers(0, 15).map(lambda thirds: thirds / 3)


def answers(first_id: int) -> st.SearchStrategy[list[ScoredResponse]]:
    """Up to eight, with ids from `first_id` on, in any order."""
    rows = st.lists(st.tuples(st.integers(1, 5), SCORES), max_size=8)
    return rows.map(
        lambda rows: responses([(i, *row) for i, row in enumerate(rows, start=first_id)])
    ).flatmap(st.permutations)


@given(answers(first_id=11), answers(first_id=1), PAIRINGS)
def test_the_order_of_the_input_changes_nothing(
    found: list[ScoredResponse], anchors: list[ScoredResponse], config: Pairing
) -> None:
    def in_order(responses: list[ScoredResponse]) -> list[ScoredResponse]:
        return sorted(responses, key=lambda r: r.response_id)

    assert pair(found, config, anchors) == pair(in_order(found), config, in_order(anchors))


@given(answers(first_id=11), answers(first_id=1), PAIRINGS)
def test_the_chosen_side_is_above_by_more_than_the_margin(
    found: list[ScoredResponse], anchors: list[ScoredResponse], config: Pairing
) -> None:
    pairs = pair(found, config, anchors).pairs
    rejectable = anchors if isinstance(config.policy, Anchored) else found
    for p in pairs:
        assert p.chosen in found
        assert p.rejected in rejectable
        assert p.chosen.score is not None
        assert p.rejected.score is not None
        assert p.chosen.score > p.rejected.score
        assert p.margin > config.min_margin
    assert len({(p.chosen.response_id, p.rejected.response_id) for p in pairs}) == len(pairs)


@given(answers(first_id=1), MARGINS_IN_THIRDS)
def test_there_is_a_pair_exactly_where_scores_lie_apart(
    found: list[ScoredResponse], margin: float
) -> None:
    thirds = sorted(round(3 * r.score) for r in found if r.score is not None)
    apart = len(thirds) > 1 and thirds[-1] - thirds[0] > margin
    for policy in (BestWorst(), Consistency(), SeveralPairs(), LengthControl(rho=0)):
        paired = pair(found, Pairing(min_margin=margin / 3, policy=policy))
        assert bool(paired.pairs) == apart
        if apart:
            first = paired.pairs[0]
            ends = (mean_score([thirds[-1] / 3]), mean_score([thirds[0] / 3]))
            assert (first.chosen.score, first.rejected.score) == ends


@given(answers(first_id=1), MARGINS_IN_THIRDS)
def test_the_widest_of_several_is_the_best_against_the_worst(
    found: list[ScoredResponse], margin: float
) -> None:
    one = SeveralPairs(max_pairs_per_prompt=1)
    several = pair(found, Pairing(min_margin=margin / 3, policy=one))
    assert several == pair(found, Pairing(min_margin=margin / 3, policy=BestWorst()))


@given(answers(first_id=1), MARGINS_IN_THIRDS, st.integers(1, 30))
def test_several_takes_the_widest_margins(
    found: list[ScoredResponse], margin: float, limit: int
) -> None:
    policy = SeveralPairs(max_pairs_per_prompt=limit)
    pairs = pair(found, Pairing(min_margin=margin / 3, policy=policy)).pairs
    known = [round(3 * r.score) for r in found if r.score is not None]
    thirds = (a - b for a in known for b in known if a - b > margin)
    assert [round(3 * p.margin) for p in pairs] == sorted(thirds, reverse=True)[:limit]


def test_equal_margins_are_equal_however_their_means_were_rounded() -> None:
    """As decimals 2/3 - 1/3 is a step more than 1/3 - 0: it is not wider, nor above 1/3."""
    thirds = [
        ScoredResponse(i, f"text {i}", mean_score(scores))
        for i, scores in enumerate([(1, 0, 0), (0, 0, 0), (1, 1, 0)])
    ]
    several = SeveralPairs(max_pairs_per_prompt=3)
    found = pair(thirds, Pairing(policy=several)).pairs
    assert [(p.chosen.response_id, p.rejected.response_id) for p in found] == [
        (2, 1),
        (0, 1),
        (2, 0),
    ]
    only = pair(thirds, Pairing(policy=several, min_margin=1 / 3)).pairs
    assert [(p.chosen.response_id, p.rejected.response_id) for p in only] == [(2, 1)]


def judged(*scores_by_response: tuple[float | None, ...]) -> list[ScoredResponse]:
    """One prompt; each response's scores by judge index."""
    return [
        ScoredResponse(i, "x", None, scores) for i, scores in enumerate(scores_by_response, start=1)
    ]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        # Two judgements, three responses: 3 pairs of responses.
        pytest.param([(1, 2), (2, 3), (3, 5)], 1.0, id="one order"),
        pytest.param([(1, 5), (2, 3), (3, 2)], 0.0, id="opposite orders"),
        pytest.param([(1, 1), (2, 3), (3, 2)], (1 / 3 + 1) / 2, id="two agree, one does not"),
        pytest.param([(1, 1), (2, 1), (3, 2)], (2 / 3 + 1) / 2, id="a tie of one counts 0"),
        pytest.param([(1, 1), (1, 1), (3, 2)], 1.0, id="a tie of both is agreement"),
        pytest.param([(4, 4), (4, 4), (4, 4), (2, 2)], 1.0, id="the same scores are one order"),
        pytest.param([(4, 4), (4, 4)], 0.5, id="one score for all shows no order"),
        pytest.param([(4, 1), (4, 2)], 0.5, id="nothing but ties of one is chance"),
        # Pairs of responses: one that nobody separates, and two that are reversed.
        pytest.param([(1, 2), (1, 2), (2, 1)], 0.0, id="a tie of all does not hide doubt"),
        # The third judgement separates what 0 and 1 tie: they agree, and each half with it.
        pytest.param([(4, 4, 1), (4, 4, 2)], (1 / 3 + 1) / 2, id="separated by one judgement"),
        # Three judgements: 0 and 1 agree (tau 1), 2 reverses both (tau -1, -1).
        pytest.param([(1, 1, 3), (2, 2, 2), (3, 3, 1)], (-1 / 3 + 1) / 2, id="three judgements"),
        pytest.param([(1, 2), (2, 3), (3, None)], 1.0, id="an unparsed score leaves out its pair"),
        # 0 and 1 share the first two (tau 1), 0 and 2 the last two (tau -1), 1 and 2 only one.
        pytest.param(
            [(1, 1, None), (2, 2, 5), (3, None, 4)], 0.5, id="each two by what they share"
        ),
        pytest.param([(1, 5), (2, 2), ()], 0.0, id="a response without judgements"),
        pytest.param([(1,), (2,)], 0.5, id="one judgement shows no agreement"),
        pytest.param([(1, None), (None, 2)], 0.5, id="nothing in common"),
        pytest.param([(1, 5)], 0.5, id="one response"),
        pytest.param([], 0.5, id="no response"),
    ],
)
def test_consistency_by_hand(scores: list[tuple[float | None, ...]], expected: float) -> None:
    assert consistency([judged(*scores)]) == pytest.approx(expected)


def test_each_prompt_counts_once_and_silent_ones_not_at_all() -> None:
    agreeing = judged((1, 1, 1), (2, 2, 2))
    opposed = judged((1, 2), (2, 1))
    silent = judged((3, None), (4, 1))
    assert consistency([agreeing, opposed, silent, []]) == 0.5
    assert consistency([agreeing, agreeing, opposed]) == pytest.approx(2 / 3)
    assert consistency([agreeing, judged((4, 4), (4, 4))]) == 1.0
    assert consistency([]) == 0.5


JUDGED = st.lists(st.tuples(*[st.none() | st.integers(0, 5)] * 3), max_size=6).map(
    lambda rows: judged(*rows)
)


@given(st.lists(JUDGED, max_size=4).flatmap(lambda p: st.tuples(st.just(p), st.permutations(p))))
def test_consistency_lies_in_its_range_whatever_the_order(
    prompts: tuple[list[list[ScoredResponse]], list[list[ScoredResponse]]],
) -> None:
    in_order, shuffled = prompts
    value = consistency(in_order)
    assert 0 <= value <= 1
    assert consistency([responses[::-1] for responses in shuffled]) == value


@given(
    st.integers(2, 8).flatmap(
        lambda n: st.tuples(*[st.permutations([float(i) for i in range(n)])] * 3)
    )
)
def test_without_ties_it_is_scipys_kendall_tau(by_judge: tuple[list[float], ...]) -> None:
    a, b, c = by_judge
    taus = [kendalltau(x, y).statistic for x, y in ((a, b), (a, c), (b, c))]
    ours = consistency([judged(*zip(*by_judge, strict=True))])
    assert ours == pytest.approx((sum(taus) / 3 + 1) / 2)


@pytest.mark.parametrize(
    ("agreement", "expected"), [(1.0, 0.0), (0.9, 0.1), (0.5, 0.5), (0.3, 0.5), (0.0, 0.5)]
)
def test_labels_are_softened_by_the_doubt_and_never_turned_round(
    agreement: float, expected: float
) -> None:
    assert label_smoothing(agreement) == pytest.approx(expected)


@pytest.mark.parametrize("agreement", [-0.1, 1.1, float("nan")])
def test_a_consistency_out_of_range_is_refused(agreement: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        label_smoothing(agreement)
