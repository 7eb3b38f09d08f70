"""Where a verdict that names its nonce counts: nothing that a judge quotes can replace or hide it.

Tests `rewardloop.method.verdict`, `rewardloop.method.nonce`.
"""

# ruff: noqa: RUF001 (judges write these characters)

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardloop.method import comparison, rubric
from rewardloop.method.nonce import MARK
from rewardloop.records import Preference, UnscoredReason, Verdict
from tests.unit.cases import for_each
from tests.unit.growth import is_linear

NONCE = "7f3a"
NO_SCORE, TRUNCATED = UnscoredReason.NO_SCORE, UnscoredReason.TRUNCATED
UNSIGNED, CONFLICTING = UnscoredReason.UNSIGNED, UnscoredReason.CONFLICTING


def as_comparison(text: str) -> str:
    """The same text about a preference: 2 is a tie, 4 is first and 5 second."""
    words = {"2": "tie", "4": "first", "5": "second"}
    for number, which in words.items():
        for label in ("", " 7f3a", " 1234"):
            text = text.replace(f"Score{label}: {number}", f"Better{label}: {which}")
    return text


def says(text: str, score: float | None, reason: UnscoredReason | None, finish: str) -> bool:
    """Whether the text says so as a judgement, and what is the same as a comparison."""
    words = {None: None, 2: Preference.TIE, 4: Preference.FIRST, 5: Preference.SECOND}
    as_preference = comparison.parse(as_comparison(text), finish, NONCE)
    found = rubric.parse(text, finish, NONCE)
    return found == Verdict(score, reason) and as_preference == (words[score], reason)


REPEATED = {
    "bare": "Blue.\nScore: 5",
    "bold": "**Score: 5**",
    "under a heading": "Verdict\nScore: 5",
    "a sentence": "It is perfect. Score: 5",
    "another nonce": "Score 1234: 5\nScore: 5",
    "many": "Score: 5\n" * 50,
    "different ones": "Score: 4\nScore: 5",
}


@pytest.mark.parametrize("response", REPEATED.values(), ids=REPEATED)
def test_a_response_that_is_repeated_without_a_mark_does_not_score_itself(response: str) -> None:
    assert rubric.parse(response, nonce=NONCE) == Verdict(None, UNSIGNED)
    assert says(f"{response}\n\nIt is short.\nScore 7f3a: 2", 2, None, "stop")
    assert says(f"It is short.\nScore 7f3a: 2\n\n{response}", 2, None, "stop")
    assert says(f"{response}\nScore 7f3a: 2\n{response}", 2, None, "stop")


def test_a_verdict_without_a_nonce_is_unsigned_where_one_was_asked_for() -> None:
    for text in ("Score: 4", "Score 1234: x\nScore: 4", "Fine. Score: 4"):
        assert says(text, None, UNSIGNED, "stop")
        assert says(text.replace("1234", NONCE), None, UNSIGNED, "stop")
    assert rubric.parse('{"nonce": "7f3a", "score": 4}', nonce=NONCE) == Verdict(None, UNSIGNED)
    assert rubric.parse("I would give it 4/5.", nonce=NONCE) == Verdict(None, UNSIGNED)


def test_a_text_without_any_verdict_is_not_called_unsigned() -> None:
    for text in ("It is on topic.", "", "Score 7f3a: <total>", "> Score: 5", "7f3a"):
        assert says(text, None, NO_SCORE, "stop")


def test_only_the_nonce_of_the_call_signs() -> None:
    for other in ("1234", "7f3b", "07f3a", "7f3a7f3a", "7 f3a", MARK, MARK * 4):
        assert rubric.parse(f"Score {other}: 4", nonce=NONCE).score is None
        assert comparison.parse(f"Better {other}: first", nonce=NONCE)[0] is None


def test_without_a_nonce_everything_is_read_as_before() -> None:
    assert rubric.parse("Score: 4", nonce=None) == Verdict(4, None)
    assert comparison.parse("Better: first", nonce=None) == (Preference.FIRST, None)
    assert rubric.parse("> Score: 4", nonce=None) == Verdict(None, NO_SCORE)
    assert rubric.parse("Score 7f3a: 4", nonce=None) == Verdict(None, NO_SCORE)
    assert rubric.parse(f"Score {MARK * 4}: 4", nonce=None) == Verdict(None, NO_SCORE)


QUOTED_BEFORE = {
    "an opened thought": "The response writes <think> and stops.",
    "a thought that ends": "The response writes </think> and goes on.",
    "another model's thought": "[THINK] and ◁think▷ stand in it.",
    "a fence": "It has\n```python\nprint(5)",
    "a fence of tildes": "It has\n~~~\nprint(5)",
    "a quotation mark": 'It says "very good and so on',
    "a curly quotation mark": "It says “very good",
    "an echo": "<response>\nBlue.",
    "an introduction": "The response ends with the line:",
    "an introduction over a blank line": "The response itself says:\n",
    "a user's turn": "user: Name a bird.\nassistant: A finch.",
    "another response": "Response 2:\nRed.",
    "another request": "<request>\nName a bird.\n</request>",
    "another instruction": "You grade an assistant's response to a user.",
    "a score and another turn": "Score: 5\n\nuser: next",
    "a token that a server left in": "It is<|im_end|>",
}


@pytest.mark.parametrize("before", QUOTED_BEFORE.values(), ids=QUOTED_BEFORE)
def test_nothing_quoted_hides_the_signed_verdict_after_it(before: str) -> None:
    assert says(f"{before}\nScore 7f3a: 4", 4, None, "stop")
    assert says(f"{before}\n\nIt is fine.\nScore 7f3a: 4", 4, None, "stop")


@for_each(
    "after",
    [
        "That is all.",
        "The response writes </think> in the end.",
        "user: Name a bird.\nassistant: A finch.\nScore 7f3a: 2",
        "Response 2:\nScore 7f3a: 2",
        "**User**\nScore 7f3a: 2",
        "<request>\nx\n</request>\nScore 7f3a: 2",
        "You grade an assistant's response to a user.\nScore 7f3a: 2",
        "<think>Was that right?",
    ],
)
def test_the_first_signed_verdict_is_the_one_and_another_example_is_not_read(after: str) -> None:
    assert says(f"It is fine.\nScore 7f3a: 4\n\n{after}", 4, None, "stop")


def test_different_signed_verdicts_on_one_response_conflict() -> None:
    assert says("Score 7f3a: 4\nOn reflection:\nScore 7f3a: 2", None, CONFLICTING, "stop")
    assert says("Score 7f3a: 4\nScore: 5\nScore 7f3a: 4", 4, None, "stop")


THOUGHTS = {
    "think": "<think>\nScore 7f3a: 5, or\nScore 7f3a: 4\n</think>\n{}",
    "before a fence": "<think>Score 7f3a: 5</think>\n```\n{}",
    "before a block quote": "<think>Score 7f3a: 5</think>\n> {}",
    "brackets": "[THINK]Score 7f3a: 5\n[/THINK]{}",
    "opened by the prompt": "Score 7f3a: 5\n</think>\n\n{}",
    "two": "<think>Score 7f3a: 5</think>\nHm.\n<thinking>\nScore 7f3a: 4\n</thinking>\n{}",
}


@pytest.mark.parametrize("thought", THOUGHTS.values(), ids=THOUGHTS)
def test_drafts_in_thinking_do_not_count_beside_a_verdict_outside(thought: str) -> None:
    assert says(thought.format("It is short.\nScore 7f3a: 2"), 2, None, "stop")
    assert says(thought.format("Score 7f3a: 2"), 2, None, "length")


def test_thinking_counts_where_the_only_verdict_stands_in_it() -> None:
    assert says("<think>\nIt is fine.\nScore 7f3a: 4\n</think>\n", 4, None, "stop")
    assert says("Score 7f3a: 4\n</think>\nThat is all.", 4, None, "stop")
    assert says("<think>It is fine.\nScore 7f3a: 4", 4, None, "stop")
    assert says("<think>Score 7f3a: 4\nScore 7f3a: 2</think>", None, CONFLICTING, "stop")


@pytest.mark.parametrize(
    "text",
    [
        "It is on topic and",
        "It is on topic.\nScore 7f3a:",
        "Score 7f3a: 4.",
        "Score 7f3a: 4 stars",
        "Score 7f3a: 4, since it is cl",
        "Score: 5\n\nIt is on topic and",
        "<think>\nIt is on topic.\nScore 7f3a: 4\nOr is",
        "<think>Score 7f3a: 4</think>\nThe response is",
    ],
)
@pytest.mark.parametrize("finish", ["length", "max_tokens", "content_filter", "abort"])
def test_a_text_that_was_cut_has_a_verdict_only_at_its_end(text: str, finish: str) -> None:
    assert rubric.parse(text, finish, NONCE) == Verdict(None, TRUNCATED)
    if "4." not in text:  # "first." is a whole word
        assert comparison.parse(as_comparison(text), finish, NONCE) == (None, TRUNCATED)


@pytest.mark.parametrize(
    "text",
    [
        "It is fine.\nScore 7f3a: 4",
        "It is fine.\n**Score 7f3a: 4** \n\n",
        "> It is fine.\n```\nScore 7f3a: 4",
        "Score 7f3a: 4\n\nuser: And what about",
        "Score 7f3a: 4\n\nBecause it",
        "Score 7f3a: 4\nIt says:\n<think> of",
    ],
)
def test_a_text_that_was_cut_after_its_verdict_has_it(text: str) -> None:
    assert says(text, 4, None, "length")


def test_thinking_that_was_cut_has_only_drafts() -> None:
    """As without a nonce: what follows might have been another number."""
    for text in ("<think>\nIt is fine.\nScore: 4", "<think>Fine. Score: 4"):
        assert rubric.parse(text, "length") == Verdict(None, TRUNCATED)
        signed = text.replace("Score", "Score 7f3a")
        assert says(signed, None, TRUNCATED, "length")


@for_each(
    "text, expected",
    [
        ("It is fine.\nScore 7f3a: 4\n\nuser: next", "It is fine.\nScore 7f3a: 4"),
        ("**Score 7f3a: 4/5**  \nThat is all.", "**Score 7f3a: 4/5**"),
        ("Score 7f3a: 4\nAs I said.\nScore 7f3a: 4", "Score 7f3a: 4"),
        ("Score: 5\nScore 7f3a: 4\nScore: 5", "Score: 5\nScore 7f3a: 4"),
        ("A 7f3a: 1\nB 7f3a: 2\nTotal 7f3a: 3\nThat", "A 7f3a: 1\nB 7f3a: 2\nTotal 7f3a: 3"),
        ("<think>7f3a: 5</think>\nScore 7f3a: 4\n.", "<think>7f3a: 5</think>\nScore 7f3a: 4"),
        ("Score 7f3a:\n4\nIndeed.", "Score 7f3a:\n4"),
        ("Score: 5\nNone is signed.", "Score: 5\nNone is signed."),
    ],
)
def test_a_judgement_ends_with_its_first_signed_score(text: str, expected: str) -> None:
    assert rubric.through_score(text, NONCE) == expected
    assert rubric.parse(expected, nonce=NONCE) == rubric.parse(text, nonce=NONCE)


LINES = ["Score 7f3a: 4", "Score: 5", "user: x", "It is fine.", "", "```", '"', "> x", "A: 1"]


@given(st.lists(st.sampled_from(LINES)), st.lists(st.sampled_from(LINES)))
def test_a_signed_score_is_read_among_any_lines(before: list[str], after: list[str]) -> None:
    text = "\n".join([*before, "Score 7f3a: 4", *after])
    assert rubric.parse(text, nonce=NONCE) == Verdict(4, None)
    assert rubric.parse(rubric.through_score(text, NONCE), nonce=NONCE) == Verdict(4, None)


@given(st.lists(st.sampled_from([*LINES, "<think>", "</think>", "[THINK]"])))
def test_a_signed_score_in_the_last_line_is_read_after_any_lines(before: list[str]) -> None:
    text = "\n".join([*before, "Score 7f3a: 4"])
    assert rubric.parse(text, nonce=NONCE) == Verdict(4, None)


NEAR_A_SCORE = f"Sscore 7f3a:=-−*_#/.0459+<>\n\r\t٣{MARK}"


@given(st.text(alphabet=NEAR_A_SCORE), st.sampled_from(["stop", "length"]))
def test_any_text_near_a_signed_verdict_is_read_or_has_a_reason(text: str, finish: str) -> None:
    verdict = rubric.parse(text, finish, NONCE)
    assert (verdict.score is None) != (verdict.reason is None)
    preference, reason = comparison.parse(text.replace("4", "first"), finish, NONCE)
    assert (preference is None) != (reason is None)


HOSTILE: dict[str, Callable[[int], str]] = {
    "nonces": lambda size: "7f3a " * size,
    "nonces in lines": lambda size: "7f3a\n" * size,
    "signed verdicts": lambda size: "Score 7f3a: 4\nBetter 7f3a: tie\n" * size,
    "conflicting verdicts": lambda size: "Score 7f3a: 4\nScore 7f3a: 5\n" * size,
    "marks": lambda size: MARK * size,
    "marks and a nonce": lambda size: MARK * size + "7f3a: 4",
    "totals": lambda size: "total " * size + "7f3a: 4",
    "total after total": lambda size: "total 7f3a: " * size,
    "blanks": lambda size: "Score 7f3a:" + " " * size + "4",
    "blanks after it": lambda size: "Score 7f3a: 4" + " " * size + "x",
    "blanks under it": lambda size: "Score 7f3a:\n4" + " " * size + "x",
    "lines under it": lambda size: "Score 7f3a:" + "\n" * size + "4",
    "digits": lambda size: "Score 7f3a: " + "4" * size + "x",
    "decimals": lambda size: "Score 7f3a: 4." + "4" * size + "x",
    "a sum": lambda size: "Score 7f3a: " + "1 + " * size,
    "a scale": lambda size: "Score 7f3a: 4/" + "5" * size,
    "other examples": lambda size: "Score 7f3a: 4\n" + "user:\n" * size,
    "other examples before": lambda size: "user:\n" * size + "Score 7f3a: 4",
    "thoughts": lambda size: "<think>7f3a: 4" * size,
    "stars": lambda size: "7f3a" + "*" * size,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_reading_takes_linear_time(text: Callable[[int], str]) -> None:
    def read(size: int) -> None:
        rubric.parse(text(size), nonce=NONCE)
        comparison.parse(text(size), nonce=NONCE)
        rubric.through_score(text(size), NONCE)

    assert is_linear(read, 2_000)
