"""Which samples are one answer, which are none, and what becomes of their judgements."""

import pytest

from rewardloop.config import (
    Anchored,
    BestWorst,
    Consistency,
    LengthControl,
    Pairing,
    PairPolicy,
    SeveralPairs,
)
from rewardloop.method.answers import has_text, pooled, same_text_key
from rewardloop.method.pairing import PairedPrompt, Unpaired, pair, sides
from rewardloop.records import ScoredResponse, mean_score
from tests.unit.cases import for_each


def response(number: int, text: str, *scores: float, is_cut: bool = False) -> ScoredResponse:
    return ScoredResponse(number, text, mean_score(scores), scores, is_cut)


def judged(number: int, *scores: float | None) -> ScoredResponse:
    return ScoredResponse(number, "Four", mean_score(scores), scores)


def ids(found: PairedPrompt) -> list[tuple[int, int]]:
    return [(p.chosen.response_id, p.rejected.response_id) for p in found.pairs]


@for_each(
    "a, b",
    [
        ("yes", "yes\n"),
        ("yes", "\t yes "),
        ("yes", "\u00a0yes\u3000"),
        ("caf\u00e9", "cafe\u0301"),
        ("\u1112\u1161\u11ab", "\ud55c"),
        ("one\ntwo", "one\r\ntwo"),
        ("one\ntwo", "one\rtwo"),
        ("one\ntwo", "one\u2028two"),
        ("yes", "\ufeffyes"),
        ("yes", "y\u200bes"),
        ("yes", "yes\u200d"),
        ("yes", "\u200e yes \u200f"),
        ("soft", "so\u00adft"),
        ("\u2764", "\u2764\ufe0f"),
        ("e\u0301", "e\u200b\u0301"),
        ("", " \u2800\n"),
    ],
)
def test_texts_that_a_reader_cannot_tell_apart_are_one(a: str, b: str) -> None:
    assert same_text_key(a) == same_text_key(b)


@for_each(
    "a, b",
    [
        ("Yes", "yes"),
        ("yes", "yes."),
        ("10\u00b2", "102"),
        ("\u210c", "H"),
        ("\uff11", "1"),
        ("one two", "one  two"),
        ("one two", "onetwo"),
        ("one\ntwo", "one\n\ntwo"),
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
            "\u0645\u06cc\u062e\u0648\u0627\u0647\u0645",
        ),
        ("\U0001f468\u200d\U0001f469", "\U0001f468\U0001f469"),
    ],
)
def test_texts_that_may_mean_two_things_are_two(a: str, b: str) -> None:
    assert same_text_key(a) != same_text_key(b)


@for_each("text", ["4", "+", "π", "$", "\U0001f44d", "四", "½", "√", "a.", "=", "°"])
def test_a_letter_a_digit_or_a_symbol_is_an_answer(text: str) -> None:
    assert has_text(text)


@for_each(
    "text",
    [
        *(
            "",
            " \n\t",
            "...",
            "?!",
            "\u2014",
            "```",
            "\u200b\ufeff",
            "()",
            '""',
            "\u2800",
            "\u3164",
        ),
        *("*", "\u0301", "\u2400", "\ufffd", "\u3002"),
    ],
)
def test_blanks_and_punctuation_alone_are_none(text: str) -> None:
    assert not has_text(text)


def test_the_samples_of_one_text_pool_their_judgements() -> None:
    samples = [
        response(3, "Five.", 2, 2, 2),
        response(2, "Four. ", 1, 1),
        response(1, "Four.", 5, 4, 4.5),
    ]
    four, five = pooled(samples)
    assert (four.response_id, four.text) == (1, "Four.")
    assert four.score == pytest.approx((5 + 4 + 4.5 + 1 + 1) / 5)
    assert four.scores == (3, 2.5, 4.5)
    assert five == samples[0]


def test_a_sample_that_was_not_cut_stands_for_its_text() -> None:
    (one,) = pooled([response(1, "Four", 5, is_cut=True), response(2, "Four\n", 1)])
    assert (one.response_id, one.is_cut, one.score) == (2, False, 3)


def test_an_unscored_sample_does_not_lower_a_mean() -> None:
    (one,) = pooled([judged(1, None), judged(2, 4, 4)])
    assert (one.response_id, one.score) == (2, 4)


def test_a_text_has_a_mean_where_more_than_half_of_all_its_judgements_have_a_score() -> None:
    # 3 of 5 judgements of the text, though the first sample alone has too few.
    (one,) = pooled([judged(1, None, 2), judged(2, 4, 3, None)])
    assert (one.response_id, one.score, one.scores) == (2, 3, (4, 2.5, None))
    # 3 of 6: half is not more than half. The single scores stay.
    (half,) = pooled([judged(1, None, None, None), judged(2, 4, 3, 2)])
    assert (half.response_id, half.score, half.scores) == (2, None, (4, 3, 2))


POLICIES: list[PairPolicy] = [
    BestWorst(),
    LengthControl(rho=0.1),
    SeveralPairs(max_pairs_per_prompt=9),
    Consistency(),
    Anchored(),
]


def paired(policy: PairPolicy, found: list[ScoredResponse], **config: object) -> PairedPrompt:
    """In the first iteration, where the anchors are the responses."""
    return pair(found, Pairing.model_validate({"policy": policy, **config}), found)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.kind)
def test_every_policy_takes_its_next_best_where_two_samples_are_one_text(
    policy: PairPolicy,
) -> None:
    """Pooled, "Four." has 3 points: 4 against 3 and 1 point are what is left."""
    found = paired(
        policy,
        [
            response(1, "Four.", 5, 5),
            response(2, "Four.\r\n", 1, 1),
            response(3, "It is five.", 1, 1),
            response(4, "Roughly 4", 4, 4),
            response(5, "...", 0, 0),
        ],
    )
    expected = [(4, 3)] if not isinstance(policy, SeveralPairs) else [(4, 3), (1, 3), (4, 1)]
    assert ids(found) == expected
    assert (found.num_without_text, found.num_repeated, found.num_cut_dropped) == (1, 1, 0)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.kind)
def test_a_prompt_without_two_answers_says_which_rule_left_too_few(policy: PairPolicy) -> None:
    same = [response(1, "Four.", 5), response(2, "Four. ", 1)]
    assert paired(policy, same).unpaired is Unpaired.SAME_TEXT
    blank = [response(1, "Four.", 5), response(2, " ", 1)]
    assert paired(policy, blank).unpaired is Unpaired.NO_TEXT
    cut = [response(1, "Four.", 5), response(2, "It is", 1, is_cut=True)]
    assert ids(paired(policy, cut)) == [(1, 2)]
    dropped = paired(policy, cut, cut_answers="drop")
    assert (dropped.unpaired, dropped.num_cut_dropped) == (Unpaired.CUT, 1)
    assert paired(policy, cut[:1]).unpaired is Unpaired.TOO_FEW_SCORED


def test_an_anchor_with_the_chosen_text_gives_way_to_the_next_worst() -> None:
    new = [response(11, "Four.", 5), response(12, "Six.", 3)]
    anchors = [response(1, "Four.\n", 1), response(2, "Five.", 2)]
    found = pair(new, Pairing(policy=Anchored()), anchors)
    assert ids(found) == [(11, 2)]
    only = pair(new[:1], Pairing(policy=Anchored()), anchors[:1])
    assert only.unpaired is Unpaired.SAME_TEXT
    assert ids(pair(new, Pairing(policy=Anchored()), anchors[:1])) == [(12, 1)]


def test_consistency_looks_at_the_answers_that_may_be_sides() -> None:
    found = [response(1, "Four.", 5, 4), response(2, "Four. ", 1, 2), response(3, "!", 0, 0)]
    (one,) = sides(found, Pairing(policy=Consistency()))
    assert (one.response_id, one.scores) == (1, (3, 3))
