"""Which judgements become judge tasks: by hand, and against a search of all combinations."""

import json
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, replace
from itertools import combinations, product
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardloop.config import Eft
from rewardloop.method.eft import (
    EftReport,
    EftSelection,
    Judged,
    JudgedResponse,
    agreeing_sets,
    select,
)
from rewardloop.records import UnscoredReason

ALL = Eft(max_score_share=1)
"""Thins nothing."""

Scores = tuple[float | None, ...]
T = TypeVar("T")


def prompt(*responses: tuple[int, Scores], first_id: int = 1) -> list[JudgedResponse]:
    """Responses as (rank, scores); judgement ids count up from `first_id`."""
    ids = iter(range(first_id, first_id + 1000))
    return [
        JudgedResponse(rank, tuple(judged(next(ids), score) for score in scores))
        for rank, scores in responses
    ]


def judged(judgement_id: int, score: float | None) -> Judged:
    return Judged(judgement_id, score, UnscoredReason.NO_SCORE if score is None else None)


def kept(*responses: tuple[int, Scores]) -> tuple[int, ...]:
    return select({1: prompt(*responses)}, ALL, seed=0).kept


@pytest.mark.parametrize(
    ("responses", "expected"),
    [
        # One judgement each: in order, reversed, tied.
        ([(0, (5,)), (1, (3,))], (1, 2)),
        ([(0, (3,)), (1, (5,))], ()),
        ([(0, (4,)), (1, (4,))], ()),
        # The order in which responses come does not matter, their ranks do.
        ([(1, (3,)), (0, (5,))], (1, 2)),
        # 5 over the first 4; the 3 is over no other.
        ([(0, (3, 5)), (1, (4, 4))], (2, 3)),
        # Two sets: 5 over 4, and 4 over 3.
        ([(0, (4, 5)), (1, (3, 4))], (1, 2, 3, 4)),
        # The highest that still fits is 3, so 2 is left for the set of 3.
        ([(0, (4, 3)), (1, (2, 3))], (1, 2, 3, 4)),
        # A human tie at the top: 5 and 2 need not agree, but the third must be below both.
        ([(0, (5,)), (0, (2,)), (1, (1,))], (1, 2, 3)),
        ([(0, (5,)), (0, (2,)), (1, (3,))], ()),
        ([(0, (2,)), (0, (5,)), (1, (3,))], ()),
        # A human tie at the bottom.
        ([(0, (4,)), (1, (3,)), (1, (1,))], (1, 2, 3)),
        ([(0, (4,)), (1, (3,)), (1, (4,))], ()),
        # Three ranks in order; the middle one could be judged too low for the last.
        ([(0, (5,)), (1, (4, 1)), (2, (2,))], (1, 2, 4)),
        # Unparsed ones are passed over.
        ([(0, (None, 5)), (1, (2, None))], (2, 3)),
        # A response without any score: no set, though the others are in order.
        ([(0, (5,)), (1, (3,)), (2, (None,))], ()),
        ([(0, (5,)), (1, (3,)), (2, ())], ()),
        # Nothing to order.
        ([(0, (5,)), (0, (3,))], ()),
        ([(0, (5,))], ()),
        ([], ()),
        # Among equal scores the lower id.
        ([(0, (5, 5)), (1, (3,))], (1, 3)),
        ([(0, (3.5,)), (1, (3.4,))], (1, 2)),
    ],
)
def test_golden_sets(responses: list[tuple[int, Scores]], expected: tuple[int, ...]) -> None:
    assert kept(*responses) == expected


def test_a_report_by_hand() -> None:
    prompts = {
        # 5 over 4 and 4 over 2; the 1 over nothing.
        7: prompt((0, (5, 4, 1)), (1, (4, 2, None)), first_id=1),
        # Reversed.
        8: prompt((0, (1,)), (1, (2,)), first_id=11),
        # A human tie.
        9: prompt((0, (5,)), (0, (None,)), first_id=21),
        # One response nobody could judge.
        10: prompt((0, (5, 5)), (1, (None,)), first_id=31),
    }
    assert select(prompts, ALL, seed=0) == EftSelection(
        kept=(1, 2, 4, 5),
        report=EftReport(
            num_prompts=4,
            num_prompts_without_order=1,
            num_prompts_unjudged=1,
            num_prompts_agreeing=1,
            num_prompts_disagreeing=1,
            num_judgements=13,
            num_unparsed={
                "no_score": 3,
                "unsigned": 0,
                "out_of_range": 0,
                "conflicting": 0,
                "truncated": 0,
                "refused": 0,
                "improbable": 0,
            },
            num_without_order=1,
            num_unjudged=2,
            num_out_of_order=3,
            num_agreeing=4,
            num_thinned=0,
            num_over_limit=0,
            num_kept=4,
            scores_before={"0": 0, "1": 0, "2": 1, "3": 0, "4": 2, "5": 1},
            scores_after={"0": 0, "1": 0, "2": 1, "3": 0, "4": 2, "5": 1},
        ),
    )


def test_unparsed_judgements_are_counted_by_reason() -> None:
    reasons = [UnscoredReason.TRUNCATED, UnscoredReason.TRUNCATED, UnscoredReason.REFUSED]
    broken = tuple(Judged(i, None, reason) for i, reason in enumerate(reasons))
    report = select({1: [JudgedResponse(0, broken)]}, ALL, seed=0).report
    assert report.num_judgements == 3
    assert {k: n for k, n in report.num_unparsed.items() if n} == {"truncated": 2, "refused": 1}


@pytest.mark.parametrize("prompts", [{}, {1: prompt((0, (1,)), (1, (5,)))}])
def test_where_nothing_agrees_nothing_is_kept(prompts: dict[int, list[JudgedResponse]]) -> None:
    found = select(prompts, Eft(), seed=0)
    assert found.kept == ()
    assert found.report.num_kept == found.report.num_prompts_agreeing == 0
    assert found.report.num_prompts_disagreeing == len(prompts)
    json.dumps(asdict(found), allow_nan=False)


def ladder(*pairs: tuple[float, float]) -> dict[int, list[JudgedResponse]]:
    """One agreeing prompt per (better, worse) score; its ids are 10 i + 1 and 10 i + 2."""
    return {
        i: prompt((0, (better,)), (1, (worse,)), first_id=10 * i + 1)
        for i, (better, worse) in enumerate(pairs)
    }


def histogram(found: EftSelection) -> dict[int, int]:
    return {int(points): num for points, num in found.report.scores_after.items() if num}


@pytest.mark.parametrize(
    ("pairs", "max_score_share", "expected"),
    [
        # 6 of 12 are fours; 4 of 10 are at most 0.4.
        ([(5, 4)] * 3 + [(4, 1)] * 3, 0.4, {5: 3, 4: 4, 1: 3}),
        # Within the share already.
        ([(5, 4)] * 3 + [(4, 1)] * 3, 0.5, {5: 3, 4: 6, 1: 3}),
        # Asked for too much: the fours stop at the next most frequent.
        ([(5, 4)] * 3 + [(4, 1)] * 3, 0.1, {5: 3, 4: 3, 1: 3}),
        # Two scores, equally frequent: nothing to thin, whatever the share.
        ([(5, 4)] * 3, 0.1, {5: 3, 4: 3}),
        # Halves round to the even point.
        ([(5, 3.5), (4, 1), (4, 2)], 0.4, {5: 1, 4: 2, 1: 1, 2: 1}),
    ],
)
def test_the_most_frequent_score_is_thinned_out(
    pairs: list[tuple[float, float]], max_score_share: float, expected: dict[int, int]
) -> None:
    prompts = ladder(*pairs)
    found = select(prompts, Eft(max_score_share=max_score_share), seed=0)
    assert histogram(found) == expected
    scores = {j.judgement_id: j.score for p in prompts.values() for r in p for j in r.judgements}
    assert Counter(round(scores[i] or 0) for i in found.kept) == expected
    assert found.report.num_thinned == 2 * len(pairs) - sum(expected.values())


def test_a_lone_score_is_left_as_it_is() -> None:
    # 4.3 over 3.6: in order, and both four whole points.
    found = select(ladder((4.3, 3.6), (4.3, 3.6)), Eft(max_score_share=0.1), seed=0)
    assert found.kept == (1, 2, 11, 12)
    assert histogram(found) == {4: 4}


def test_the_limit_on_examples_is_a_seeded_sample_of_what_thinning_left() -> None:
    prompts = ladder(*[(5, 4)] * 3, *[(4, 1)] * 3)
    config = Eft(max_score_share=0.4, max_examples=7)
    found = select(prompts, config, seed=3)
    report = found.report
    assert (report.num_agreeing, report.num_thinned) == (12, 2)
    assert (report.num_over_limit, report.num_kept) == (3, 7)
    assert len(set(found.kept)) == 7
    assert found.kept == tuple(sorted(found.kept))
    assert sum(report.scores_before.values()) == 12
    assert sum(report.scores_after.values()) == 10
    assert len({select(prompts, config, seed).kept for seed in range(20)}) > 10


def test_the_seed_chooses_which_are_thinned() -> None:
    prompts = ladder(*[(5, 4)] * 3, *[(4, 1)] * 3)
    thinned = {select(prompts, Eft(), seed).kept for seed in range(20)}
    assert len(thinned) > 5
    for ids in thinned:
        # Fives and ones are never dropped; of the fours 4 are left.
        assert {1, 11, 21, 32, 42, 52} <= set(ids)
        assert len(ids) == 10


@pytest.mark.parametrize("config", [Eft(), Eft(max_score_share=1, max_examples=5)])
def test_prompts_may_come_in_any_order(config: Eft) -> None:
    prompts = ladder(*[(5, 4)] * 3, *[(4, 1)] * 3)
    backwards = dict(reversed(prompts.items()))
    for seed in range(10):
        assert select(backwards, config, seed) == select(prompts, config, seed)


def test_among_equal_scores_the_lower_id_is_taken_wherever_it_stands() -> None:
    better = JudgedResponse(0, (judged(9, 5), judged(2, 5), judged(4, 5)))
    worse = JudgedResponse(1, (judged(7, 3),))
    assert select({1: [better, worse]}, ALL, seed=0).kept == (2, 7)


SCORES = st.none() | st.integers(0, 5).map(float) | st.sampled_from([2.5, 3.5, 4.5])


@st.composite
def judged_prompts(draw: st.DrawFn) -> dict[int, list[JudgedResponse]]:
    ids = iter(draw(st.permutations(range(200))))
    reasons = st.sampled_from(UnscoredReason)

    def judgement() -> Judged:
        score = draw(SCORES)
        return Judged(next(ids), score, draw(reasons) if score is None else None)

    return {
        number: [
            JudgedResponse(draw(st.integers(0, 2)), tuple(judgement() for _ in range(num)))
            for num in draw(st.lists(st.integers(0, 3), max_size=4))
        ]
        for number in range(draw(st.integers(0, 5)))
    }


CONFIGS = st.builds(
    Eft, max_score_share=st.sampled_from([0.05, 0.3, 0.4, 1.0]), max_examples=st.integers(1, 20)
)


@given(judged_prompts(), CONFIGS, st.integers(0, 99))
def test_every_judgement_has_one_fate(
    prompts: dict[int, list[JudgedResponse]], config: Eft, seed: int
) -> None:
    found = select(prompts, config, seed)
    report = found.report
    judgements = [j for p in prompts.values() for r in p for j in r.judgements]
    assert report.num_judgements == len(judgements)
    assert report.num_judgements == (
        sum(report.num_unparsed.values())
        + report.num_without_order
        + report.num_unjudged
        + report.num_out_of_order
        + report.num_thinned
        + report.num_over_limit
        + report.num_kept
    )
    assert report.num_prompts == (
        report.num_prompts_without_order
        + report.num_prompts_unjudged
        + report.num_prompts_agreeing
        + report.num_prompts_disagreeing
    )
    assert report.num_prompts == len(prompts)
    assert report.num_agreeing == sum(report.scores_before.values())
    assert report.num_agreeing - report.num_thinned == sum(report.scores_after.values())
    assert report.num_kept == len(found.kept) <= config.max_examples
    assert set(found.kept) <= {j.judgement_id for j in judgements if j.score is not None}
    assert bool(found.kept) == bool(report.num_prompts_agreeing)


@given(judged_prompts(), CONFIGS, st.randoms(use_true_random=False))
def test_the_order_of_the_input_changes_nothing(
    prompts: dict[int, list[JudgedResponse]], config: Eft, shuffler: random.Random
) -> None:
    mixed = {
        number: [replace(r, judgements=_mixed(r.judgements, shuffler)) for r in _mixed(p, shuffler)]
        for number, p in _mixed(prompts.items(), shuffler)
    }
    assert select(mixed, config, seed=1) == select(prompts, config, seed=1)


def _mixed(items: Iterable[T], shuffler: random.Random) -> tuple[T, ...]:
    shuffled = list(items)
    shuffler.shuffle(shuffled)
    return tuple(shuffled)


def in_order(one: tuple[tuple[int, float], ...]) -> bool:
    """Whether (rank, score)s strictly fall wherever ranks differ."""
    return all(
        a[0] == b[0] or ((a[0] < b[0]) == (a[1] > b[1]) and a[1] != b[1])
        for a, b in combinations(one, 2)
    )


def most_disjoint_sets(responses: list[list[tuple[int, float]]]) -> int:
    """By trying every combination."""
    best = 0
    for choice in product(*map(range, map(len, responses))):
        picked = tuple(r[i] for r, i in zip(responses, choice, strict=True))
        if in_order(picked):
            left = [r[:i] + r[i + 1 :] for r, i in zip(responses, choice, strict=True)]
            best = max(best, 1 + most_disjoint_sets(left))
    return best


SMALL = st.lists(
    st.tuples(st.integers(0, 2), st.lists(st.integers(0, 5), max_size=3)), min_size=2, max_size=3
)


@given(SMALL)
@settings(max_examples=100)
def test_as_many_disjoint_sets_are_found_as_there_are(
    drawn: list[tuple[int, list[int]]],
) -> None:
    responses = prompt(*((rank, tuple(scores)) for rank, scores in drawn))
    sets = agreeing_sets(responses)
    everything = [[(rank, float(score)) for score in scores] for rank, scores in drawn]
    assert len(sets) == most_disjoint_sets(everything)
    ids = [i for one in sets for _, i in one]
    assert len(ids) == len(set(ids))
    ranks = {j.judgement_id: r.rank for r in responses for j in r.judgements}
    for one in sets:
        assert in_order(tuple((ranks[i], score) for score, i in one))
        assert len(one) == len(responses)
