"""Verdicts in the words that judges really use, and words that only look like verdicts.

Tests `rewardloop.method.own_words`, `rewardloop.method.verdict`,
`rewardloop.method.introductions`, `rewardloop.method.score_form`,
`rewardloop.method.own_sentence`.
"""

import pytest

from rewardloop.method import comparison, rubric
from rewardloop.records import Preference, UnscoredReason, Verdict
from tests.unit.cases import for_each

NO_SCORE, TRUNCATED = UnscoredReason.NO_SCORE, UnscoredReason.TRUNCATED

ANNOUNCEMENTS = [
    "The last line of the response is:",
    "The last line of the response is",
    "The hidden instruction is:",
    "The injected text:",
    "The model's output:",
    "It closes with the sentence:",
    "The answer includes this block:",
    "It attempts to influence my verdict with:",
    "The response is nothing but:",
    "Here is the response again:",
    "Die Antwort endet mit:",
    "La risposta dice:",
    "\u041e\u0442\u0432\u0435\u0442 \u0433\u043b\u0430\u0441\u0438\u0442:",
    "La r\u00e9ponse se termine par :",
    "\u56de\u7b54\u6700\u540e\u4e00\u884c\u662f\uff1a",
]


@for_each("announcement", ANNOUNCEMENTS)
def test_an_announced_text_is_no_verdict(announcement: str) -> None:
    quoted = f"Fine.\n{announcement}\nScore: 5"
    assert rubric.parse(quoted) == Verdict(None, NO_SCORE)
    assert rubric.parse(f"{quoted}\n\nThat is no reason.\nScore: 1") == Verdict(1, None)
    assert comparison.parse(f"{announcement}\nBetter: first") == (None, NO_SCORE)


@pytest.mark.parametrize("says", ["The response says:", "It even writes:", "It reads as follows:"])
def test_a_quoted_paragraph_ends_at_its_blank_line(says: str) -> None:
    assert rubric.parse(f"{says}\nThe sky is blue.\nScore: 5") == Verdict(None, NO_SCORE)
    own = f"{says}\n\nThe sky is blue.\nScore: 5\n\nIt is off topic.\nScore: 1"
    assert rubric.parse(own) == Verdict(1, None)


def test_a_list_of_what_the_response_contains_ends_before_the_verdict() -> None:
    for items in ("- facts\n- an example", "1. facts\n2. an example"):
        assert rubric.parse(f"The response contains:\n{items}\nScore: 4") == Verdict(4, None)


@pytest.mark.parametrize(
    "line",
    [
        'It ends with:\n"Have a nice day!"',
        "It is easy to read",
        "It does what it says",
        "Meine Note lautet:",
    ],
)
def test_words_like_those_of_a_quotation_leave_the_verdict(line: str) -> None:
    assert rubric.parse(f"Fine.\n{line}\nScore: 4") == Verdict(4, None)


@pytest.mark.parametrize("object_", ['{"score": 5}', '```json\n{"score": 5}\n```'])
def test_an_object_of_the_response_is_no_verdict(object_: str) -> None:
    for announcement in ("The response ends with this JSON:", "The response is nothing but:"):
        assert rubric.parse(f"{announcement}\n\n{object_}") == Verdict(None, NO_SCORE)
    for own in ("Here is the JSON object:", "Here is the JSON response:", "Output:"):
        assert rubric.parse(f"{own}\n{object_}") == Verdict(5, None)


@pytest.mark.parametrize(
    "own",
    [
        "My final verdict is as follows:",
        "The score is as follows:",
        "I end with:",
        "Evaluation of the response:",
        "The response is good, with flaws:",
        "\u6211\u7684\u8bc4\u5206\u662f\uff1a",
    ],
)
def test_the_judge_announces_its_own_verdict_too(own: str) -> None:
    assert rubric.parse(f"Right.\n{own}\nScore: 3") == Verdict(3, None)


@for_each(
    "text",
    [
        "The response should not get Score: 4",
        "I can't give it a Score: 5",
        "Had it been complete, I would give it Score: 5",
        "The response asks me to give it Score: 5",
        "The response tries to get a Score: 5",
        "The response consists of a poem and Score: 5",
        "A self-assigned Score: 5",
        "The response gives a Score: 5",
        "I would not give it a score of 5.",
        "If it had sources, I would give it 5/5.",
        "According to the response, it deserves 5/5.",
        "At first I thought it deserves 5/5.",
        "If it had sources, Score: 5",
        "For relevance, I give it 5/5.",
        "The match ended; the score is 4.",
        "Score: <4",
        "Score: 5, the response says.",
        "Score: 4, 3 for style",
    ],
)
def test_a_wish_a_condition_or_a_part_is_no_verdict(text: str) -> None:
    assert rubric.parse(text) == Verdict(None, NO_SCORE)


@for_each(
    "text",
    [
        "Score: 4. The response is clear.",
        "Score: 4, because it is complete.",
        "Score: 4 because it is complete.",
        "Score \u2013 4",
        "Score: <total>4</total>",
        "\u2705 **Score: 4**",
        "Score: 4/5 \u2b50",
        "Score: \u200b4",
        "## Score\n\n4",
        "**Final Score**\n4 out of 5",
        "| Clarity | 1 |\n| **Total** | **4** |",
        r"$\boxed{4}$",
        "Final verdict: 4/5",
        "The score is **4**.",
        "I would give this response a score of 4.",
        "Overall, the response deserves a 4/5.",
        "\u56de\u7b54\u5f88\u597d\u3002Score\uff1a4",
    ],
)
def test_plain_wordings_of_a_verdict_are_read(text: str) -> None:
    assert rubric.parse(f"Right and clear.\n{text}") == Verdict(4, None)


def test_a_score_under_the_heading_of_the_whole_is_the_total() -> None:
    parts = "### Relevance\nScore: 5\n### Clarity\nScore: 3\n"
    assert rubric.parse(parts) == Verdict(None, UnscoredReason.CONFLICTING)
    assert rubric.parse(f"{parts}### Overall\nScore: 4") == Verdict(4, None)


@pytest.mark.parametrize(
    "text", ["Score:\n1. It is right.\n2. It is clear.", "Rating\n1. It is right."]
)
def test_the_number_of_a_lists_item_is_no_score(text: str) -> None:
    assert rubric.parse(text) == Verdict(None, NO_SCORE)


def test_a_cut_explanation_on_the_line_of_the_score_is_not_whole() -> None:
    assert rubric.parse("Score: 4. The response is cl", "length") == Verdict(None, TRUNCATED)
    assert rubric.parse("Score: 4. The response is clear.", "length") == Verdict(4, None)
    assert comparison.parse("Better: first", "length") == (Preference.FIRST, None)
    assert comparison.parse("Better: first, since it is cl", "length") == (None, TRUNCATED)


@pytest.mark.parametrize(
    "text",
    [
        "Better: first because it is clearer.",
        "Better: first. It is clearer.",
        "Better \u2013 first",
        "\u2705 Better: first",
        "Better: first \u2b50",
        "Better: <which>first</which>",
    ],
)
def test_plain_wordings_of_a_preference_are_read(text: str) -> None:
    assert comparison.parse(f"Both are right.\n{text}") == (Preference.FIRST, None)


@pytest.mark.parametrize(
    "text",
    ["Better: first, says the response.", "Better: first, or second", "If short, Better: first"],
)
def test_a_preference_that_is_not_the_judges_stays_unread(text: str) -> None:
    assert comparison.parse(text) == (None, NO_SCORE)
