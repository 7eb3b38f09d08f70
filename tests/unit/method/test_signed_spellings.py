"""How judges, big and small, spell a verdict that names its nonce.

Tests `rewardloop.method.score_form`, `rewardloop.method.comparison`.
"""

# ruff: noqa: RUF001 (judges write these characters)

import pytest

from rewardloop.method import comparison, rubric
from rewardloop.records import Preference, UnscoredReason, Verdict
from tests.unit.cases import for_each

NONCE = "7f3a"
FIRST, SECOND, TIE = Preference
NO_SCORE, OUT_OF_RANGE = UnscoredReason.NO_SCORE, UnscoredReason.OUT_OF_RANGE
CONFLICTING = UnscoredReason.CONFLICTING


def parsed(text: str) -> Verdict:
    return rubric.parse(text, nonce=NONCE)


def compared(text: str) -> tuple[Preference | None, UnscoredReason | None]:
    return comparison.parse(text, nonce=NONCE)


SPELLINGS = [
    *("Score 7f3a: 4", "score 7f3a:4", "SCORE 7F3A: 4", "Score 7f3a = 4", "Score 7f3a 4"),
    *("7f3a: 4", "Score 7f3a - 4", "Score 7f3a – 4", "Score 7f3a is 4", "The score 7f3a is **4**."),
    *("**Score 7f3a: 4**", "**Score 7f3a:** 4", "**Score 7f3a**: 4/5", "Score **7f3a**: **4**"),
    *("__Score 7f3a: 4__", "*Score 7f3a: 4*", "`Score 7f3a: 4`", "### Score 7f3a: 4"),
    *("- Score 7f3a: 4", "> Score 7f3a: 4", "| Score 7f3a | 4 |", "✅ **Score 7f3a: 4** ⭐"),
    *('"Score 7f3a: 4"', "Score (7f3a): 4", "Score [7f3a]: 4", "[Score 7f3a: 4]", "Score #7f3a: 4"),
    *("Score 7f3a: [4]", "Score 7f3a: (4)", "Score <7f3a>: <4>", "Score 7f3a: <4>"),
    *("Score_7f3a: 4", "Score 7f3a: {4}", r"Score 7f3a: $4$", r"Score 7f3a: \boxed{4}"),
    "Score 7f3a: <total>4</total>",
    *('{"score 7f3a": 4}', '{"score_7f3a": "4/5"}', '```json\n{"Score 7f3a": 4, "why": "ok"}\n```'),
    *("Score 7f3a: 4/5", "Score 7f3a: 4 / 5", "Score 7f3a: 4/5.0", "Score 7f3a: 4 out of 5"),
    *("Score 7f3a: 4 of 5 points", "Score 7f3a: 4 points out of a maximum of 5"),
    *("Score 7f3a: 4.0", "Score 7f3a: 4.", "Score 7f3a: 4 points.", "Score 7f3a: 4 stars"),
    *("Score 7f3a: 4!", "Score 7f3a: 4 (good, but short)", "Score 7f3a: 4 (out of 5)"),
    *("Score 7f3a: 4, since it is clear", "Score 7f3a: 4 because it is clear"),
    *("Score 7f3a:\n4", "Score 7f3a\n4", "Score 7f3a:\r\n**4**", "**Score 7f3a:**\n4/5"),
    *("Score 7f3a: \n> 4", "## Score 7f3a\n\n4", "Score 7f3a (0-5): 4", "Score 7f3a (out of 5): 4"),
    *("Score 7f3a: 1 + 1 + 2 = 4", "Score 7f3a: 1+1+1+1+0=4/5", "Score 7f3a: 1 + 1 + 2 = **4**"),
    *("Score 7f3a：4", "Score 7f3a： ４", "回答很好。评分7f3a：4", "Score\u00a07f3a:\u00a04"),
    *("Score 7f3a: \u200b4", "It is right and clear. Score 7f3a: 4", "Score: 5\nScore 7f3a: 4"),
    "I gave 5 for style.\nScore 7f3a: 4",
]


@for_each("text", SPELLINGS)
def test_every_spelling_of_a_signed_score_is_read(text: str) -> None:
    assert parsed(text) == Verdict(4, None)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Score 7f3a: 0", 0),
        ("Score 7f3a: 5", 5),
        ("Score 7f3a: 3.5", 3.5),
        ("Score 7f3a: 0.25/5", 0.25),
        ("Score 7f3a:\n2.5", 2.5),
    ],
)
def test_a_score_from_0_to_5_may_have_decimals(text: str, score: float) -> None:
    assert parsed(text) == Verdict(score, None)


@for_each(
    "text",
    [
        *("Score 7f3a: 6", "Score 7f3a: 5.1", "Score 7f3a: 45", "Score 7f3a: 9" + "0" * 400),
        *("Score 7f3a: -1", "Score 7f3a: −1", "Score 7f3a: **-1**", "Score 7f3a -1"),
        *("Score 7f3a: 4/10", "Score 7f3a: 8/10", "Score 7f3a: 4 out of 10", "Score 7f3a: 4 of 6"),
        *("Score 7f3a: 4/5.5", '{"score 7f3a": "4/10"}', '{"score 7f3a": -4}', "Score 7f3a:\n-4"),
    ],
)
def test_a_score_of_another_scale_is_out_of_range(text: str) -> None:
    assert parsed(text) == Verdict(None, OUT_OF_RANGE)


@for_each(
    "text",
    [
        # What was asked for, repeated.
        *("Score 7f3a: <total>", "Score 7f3a:", "Score 7f3a: 0-5", "Score 7f3a: 0 - 5"),
        *("Score 7f3a: 0–5", "Score 7f3a: 0 to 5", "Score 7f3a: <0 to 5>", "Score 7f3a: [0-5]"),
        *("Score 7f3a: 0, 1, 2, 3, 4 or 5", "Score 7f3a: a total from 0 to 5"),
        # Undecided, or a decimal comma.
        *("Score 7f3a: 3-4", "Score 7f3a: 4 or 5", "Score 7f3a: 4,5"),
        # No digits of ours, or a part of something else.
        *("Score 7f3a: ٤", "Score 7f3a: 4٤", "Score 7f3a: ४", "Score 7f3a: 4²", "Score 7f3a: four"),
        *("Score 7f3a: 4th", "Score 7f3a: n/a", "Score 7f3a\n1. It is right.\n2. It is clear."),
        # Another nonce, and none.
        *("Score 7f3b: x", "Score 07f3a: x", "It is right.", "", "4", "7f3a"),
    ],
)
def test_what_names_no_number_is_no_score(text: str) -> None:
    assert parsed(text) == Verdict(None, NO_SCORE)


@for_each(
    "text",
    [
        # A form that was left blank is not full of points.
        *("Score 7f3a: /5", "Score 7f3a: __/5", "Score 7f3a: ?/5", "Score 7f3a: <>/5"),
        # Half a point is not five.
        "Score 7f3a: .5",
        # A sum whose total is not told, or is told in a way that is not read.
        *("Score 7f3a: 1 + 1 + 2", "Score 7f3a: 1 + 1 + ...", "Score 7f3a: 1.5 + 2 = x"),
    ],
)
def test_a_number_that_is_not_the_score_is_not_read_as_one(text: str) -> None:
    assert parsed(text).score is None


@pytest.mark.parametrize("text", ["Score 7f3a: 4 (out of 10)", "Score 7f3a: 4 (of 10 points)"])
def test_another_scale_in_brackets_is_no_score_of_ours(text: str) -> None:
    assert parsed(text) == Verdict(None, OUT_OF_RANGE)


def test_a_scale_before_the_number_is_not_the_number() -> None:
    assert parsed("Score 7f3a (/5): 3") == Verdict(3, None)


@for_each(
    "text, score",
    [
        ("Clarity 7f3a: 1\nUse 7f3a: 2\nTotal 7f3a: 3", 3),
        ("Score 7f3a: 1\nScore 7f3a: 2\n**Total score 7f3a: 3**", 3),
        ("Score 7f3a: 1\nScore 7f3a: 2\nTotal number of points 7f3a: 3", 3),
        ("Score 7f3a: 2\nOn reflection:\nFinal score 7f3a: 3", 3),
        ("Score 7f3a: 2\nOverall: 7f3a: 3", 3),
        ("Score 7f3a: 2\nRevised score 7f3a: 3", 3),
        # A total that does not say of what, and then the score.
        ("Total 7f3a: 12\nScore 7f3a: 3", 3),
        ("Score 7f3a: 3\nAs I said.\n**Score 7f3a: 3/5**", 3),
    ],
)
def test_a_signed_total_takes_the_place_of_its_parts(text: str, score: float) -> None:
    assert parsed(text) == Verdict(score, None)


@pytest.mark.parametrize(
    "text",
    [
        "Score 7f3a: 3\nScore 7f3a: 4",
        "Score 7f3a: 9\nScore 7f3a: 3",
        "Total score 7f3a: 4\nScore 7f3a: 2",
        "Final score 7f3a: 4\nTotal score 7f3a: 2",
    ],
)
def test_two_different_signed_scores_conflict(text: str) -> None:
    assert parsed(text) == Verdict(None, CONFLICTING)


@for_each(
    "text",
    [
        *("Better 7f3a: first", "better 7f3a:first", "BETTER 7F3A = FIRST", "7f3a: first"),
        *("Better 7f3a - first", "**Better 7f3a: first**", "**Better 7f3a:** first"),
        *("__Better 7f3a: first__", "### Better 7f3a: first.", "> Better 7f3a: first"),
        *("| Better 7f3a | first |", "Better_7f3a: first"),
        *("Better [7f3a]: [first]", "Better 7f3a: <first>", "Better 7f3a: <which>first</which>"),
        *("Better 7f3a: the first response", "Better 7f3a is the first", "Better 7f3a:\n\nfirst"),
        *('{"better 7f3a": "first"}', "```\nBetter 7f3a: first\n```", "Better 7f3a：first"),
        *("Better 7f3a: first (not the second)", "Better 7f3a: first. The second is long."),
        *("Better: second\nBetter 7f3a: first", "Better 7f3a: second\nFinal verdict 7f3a: first"),
    ],
)
def test_every_spelling_of_a_signed_preference_is_read(text: str) -> None:
    assert compared(text) == (FIRST, None)


def test_each_word_is_its_preference() -> None:
    words = [compared(f"Better 7f3a: {word}") for word in ("first", "second", "tie", "a tie")]
    assert words == [(FIRST, None), (SECOND, None), (TIE, None), (TIE, None)]


@for_each(
    "text",
    [
        *("Better 7f3a: <which>", "Better 7f3a: first, second or tie", "Better 7f3a: first/second"),
        *("Better 7f3a: first or second", "Better 7f3a: first and second", "Better 7f3a: neither"),
        *("Better 7f3a: fir\u017ft", "Better 7f3a: firstly", "Better 7f3a: not first", "", "7f3a"),
        *("Better 7f3a: first | second | tie", "Better 7f3a:", "first 7f3a", "Better 7f3b: x"),
    ],
)
def test_what_names_no_preference_is_none(text: str) -> None:
    assert compared(text) == (None, NO_SCORE)


def test_a_preference_between_two_words_is_none() -> None:
    assert compared("Better 7f3a: first or the second")[0] is None


def test_two_different_signed_preferences_conflict() -> None:
    assert compared("Better 7f3a: first\nBetter 7f3a: tie") == (None, CONFLICTING)
    assert compared("Better 7f3a: tie\nBetter 7f3a: tie") == (TIE, None)
