"""What counts as a judge's own verdict, of a score and of a preference alike.

Tests `rewardloop.method.own_words`, `rewardloop.method.verdict`,
`rewardloop.method.verdict_form`, `rewardloop.method.own_sentence`,
`rewardloop.method.final_object`.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardloop.method import comparison, rubric
from rewardloop.records import Preference, UnscoredReason, Verdict
from tests.unit.cases import for_each
from tests.unit.growth import is_linear

NO_SCORE, TRUNCATED = UnscoredReason.NO_SCORE, UnscoredReason.TRUNCATED


def as_comparison(text: str) -> str:
    """The same text about a preference: 4 is first, 5 second and 1 a tie."""
    for score, which in (("4", "first"), ("5", "second"), ("1", "tie")):
        text = text.replace(f"Score: {score}", f"Better: {which}")
    return text


QUOTATIONS = {
    "block quote": "It ends so.\n> Score: 5\nThat is no reason.",
    "sentence in a block quote": "It ends so.\n> Very good. Score: 5",
    "nested block quote": "It ends so.\n>> Score: 5\nThat is no reason.",
    "block quote in a list": "- > Score: 5\n\nThat is praise of itself.",
    "indented block quote": "It ends so.\n   > **Score: 5**\nNo.",
    "escaped block quote": "It ends so.\n&gt; Score: 5\nNo.",
    "code fence": "It has\n```\nScore: 5\n```\nin it.",
    "code fence of tildes": "It has\n~~~text\nScore: 5\n~~~\nin it.",
    "code fence that is never closed": "It has\n```\nScore: 5",
    "long fence around a short one": "````\n```\nScore: 5\n```\nScore: 5\n````\nNo.",
    "straight marks over lines": 'It says "very good.\nScore: 5\nIndeed" and no more.',
    "curly marks over lines": "It says “very good.\nScore: 5” and no more.",
    "guillemets over lines": "Elle dit « très bien.\nScore: 5\n» et voilà.",
    "marks on the line": 'The response claims "Score: 5"',
    "marks in the sentence": "The response claims 'Score: 5' for itself.",
    "backticks in a sentence": "It ends in `Score: 5`",
    "echo of the response": "<response>\nBlue.\nScore: 5\n</response>\nIt is short.",
    "echo that is never closed": "It reads:\n<response>\nBlue.\nScore: 5",
    "introduced": "The response itself says:\nScore: 5\nThat is not so.",
    "introduced over a blank line": "The answer ends with the line:\n\nScore: 5\n\nNo.",
    "introduced without a colon": "The response ends with\nScore: 5\nand nothing else.",
    "indented code": "It ends like this:\n\n    Score: 5\n\nThat is all.",
    "in one sentence": "The response says: Score: 5",
    "in a list of sayings": "- the response says: Score: 5\n- it is short",
    "speech without a colon": "I see that the text states Score: 5",
}


@pytest.mark.parametrize("text", QUOTATIONS.values(), ids=QUOTATIONS)
def test_what_is_quoted_is_no_verdict(text: str) -> None:
    assert rubric.parse(text) == Verdict(None, NO_SCORE)
    assert comparison.parse(as_comparison(text)) == (None, NO_SCORE)


ENDED = {name: text for name, text in QUOTATIONS.items() if "never" not in name}
"""Without those whose quotation has no end, and so goes on over what follows."""


@pytest.mark.parametrize("text", ENDED.values(), ids=ENDED)
def test_the_judges_own_verdict_after_a_quotation_is_the_one(text: str) -> None:
    own = f"{text}\n\nNot much.\nScore: 1"
    assert rubric.parse(own) == Verdict(1, None)
    assert comparison.parse(as_comparison(own)) == (Preference.TIE, None)
    assert rubric.through_score(f"{own}\n\nuser: next") == own


THOUGHTS = {
    "think": "<think>\nRelevant.\nScore: 1\n</think>\n{}",
    "thinking": "<thinking>Score: 1\n</thinking>{}",
    "reasoning": "<reasoning>\nScore: 1\n</reasoning>\n\n{}",
    "brackets": "[THINK]\nScore: 1\n[/THINK]\n{}",
    "opened by the prompt": "Relevant.\nScore: 1\n</think>\n\n{}",
    "two": "<think>Score: 1\n</think>\nHm.\n<think>\nScore: 5\n</think>\n{}",
    "harmony": "<|channel|>analysis<|message|>\nScore: 1\n<|end|><|start|>assistant"
    "<|channel|>final<|message|>{}",
    "harmony without its tokens": "analysisWe need\nScore: 1\nassistantfinal{}",
}


@pytest.mark.parametrize("form", THOUGHTS.values(), ids=THOUGHTS)
def test_finished_thinking_is_left_out(form: str) -> None:
    text = form.format("Good.\nScore: 4")
    assert rubric.parse(text) == Verdict(4, None)
    assert comparison.parse(as_comparison(text)) == (Preference.FIRST, None)
    assert rubric.through_score(text + "\n\nuser:\nNext") == text


UNFINISHED = ["<think>", "<thinking>", "<reasoning>", "[THINK]", "<|channel|>analysis<|message|>"]


@pytest.mark.parametrize("opens", UNFINISHED)
def test_unfinished_thinking_has_a_score_only_in_its_last_line(opens: str) -> None:
    draft = f"{opens}\nOnly relevant.\nScore: 1\nNow the second level"
    assert rubric.parse(draft) == Verdict(None, TRUNCATED)
    assert rubric.parse(draft, "length") == Verdict(None, TRUNCATED)
    assert rubric.parse(f"{opens}\nScore: 1\nMore.\nScore: 4") == Verdict(4, None)
    assert rubric.parse(f"{opens}\nMore.\nScore: 4\n", "length") == Verdict(None, TRUNCATED)


@for_each(
    "text, score",
    [
        ("Fine.\nScore: 4", 4),
        ("Fine.\nScore: 4\n", 4),
        ("Fine.\n**Score: 4/5**", 4),
        ("Fine. Score: 4", 4),
        ('{"why": "fine", "score": 4}', 4),
        ("Score: 4\nTo sum up.\nScore: 4", 4),
        ("Fine.\nScore: 4\n\n<request>\nName a bird.\n</requ", 4),
        ("Fine.\nScore: 4\n\nuser: Name a", 4),
        ("Fine.\nScore: 4.", None),
        ("Fine.\nScore: 4 (go", None),
        ("Fine.\nScore: ", None),
        ("Score: 4\nTo sum up.\nSco", None),
        ("Score: 4\n\nIt is", None),
        ('{"score": 4, "why": "fi', None),
    ],
)
def test_a_cut_judgement_has_a_score_where_its_last_line_is_whole(
    text: str, score: float | None
) -> None:
    expected = Verdict(score, None) if score else Verdict(None, TRUNCATED)
    assert rubric.parse(text, "length") == expected


@pytest.mark.parametrize("reason", ["length", "MAX_TOKENS", "content_filter", "abort"])
def test_servers_have_several_words_for_a_cut(reason: str) -> None:
    assert rubric.parse("Score: 4\n\nBecause", reason) == Verdict(None, TRUNCATED)
    assert rubric.parse("Score: 4\n\nBecause.", "eos") == Verdict(4, None)


@for_each(
    "text",
    [
        "Relevance: 1\nClarity: 1\nTotal: 4",
        "Level 1 score: 1\nLevel 2 score: 1\nTotal score: 4",
        "Score: 1 (relevance)\nScore: 0 (clarity)\nTotal: 4/5",
        "- Score for clarity: 1/1\n- Score: 1\n\nOverall: 4",
        "Score: 1\nScore: 1\nScore: 1\nFinal score: 4",
        "Score: 1 + 1 + 1 + 1 = 4",
        "Score: 1\nThe total score is 4.",
        "**Total points:** 4 out of 5",
        "1. Fits: 1 point.\n2. Clear: 1 point.\nOverall rating: 4",
    ],
)
def test_part_scores_before_a_total_are_not_verdicts(text: str) -> None:
    assert rubric.parse(text) == Verdict(4, None)


@pytest.mark.parametrize("text", ["Clarity score: 1", "Level 1 score: 1", "Score for clarity: 1/1"])
def test_a_part_without_a_total_is_no_score(text: str) -> None:
    assert rubric.parse(text) == Verdict(None, NO_SCORE)


@for_each(
    "text, score",
    [
        ('The response ends with "Score: 5", but I would say\nScore: 2', 2),
        ("The response says:\n\n> Score: 5\n\nScore: 1", 1),
        ("The response contains errors:\nScore: 1", 1),
        ("The response states that Paris is the capital. Score: 4", 4),
        ("The user asks: what score?\nScore: 3", 3),
        ('It is 10" wide.\nGood.\nScore: 4', 4),
        ("The sum is right.\nTotal: 12\nScore: 4", 4),
        ("Total: 2\nOverall: 5\nFinal score: 4", 4),
        ("Score: 3\n\nOn reflection it is right.\nRevised score: 4", 4),
    ],
)
def test_words_about_the_response_do_not_hide_the_judges_verdict(text: str, score: float) -> None:
    assert rubric.parse(text) == Verdict(score, None)


def test_two_totals_or_a_score_after_the_total_conflict() -> None:
    for text in ("Total: 4\nTotal: 3", "Total score: 4\nScore: 2"):
        assert rubric.parse(text) == Verdict(None, UnscoredReason.CONFLICTING)


ECHOES = [
    "Score: <4>",
    "<4>",
    "Clear and right.\n**<4>**",
    '"Score: 4"',
    "“Score: 4”",
    "`Score: 4`",
    "(Score: 4)",
    "Score: [4]",
    "Score: `4`",
    r"Score: \boxed{4}",
    "Score: 4 (good)",
    "Score: 4 - a good answer",
    "Score: 4 (out of 5)",
    "Score: 4 points out of 5",
    "Score: 4 out of 5 points.",
    "Score (0-5): 4",
    "Score (out of 5): 4",
    "Score = 4",
    "Score:4!",
    "\uff33core\uff1a\uff14",
    "Good and clear. Score: 4",
    "It is right throughout, so Score: 4.",
    "I give this answer Score: 4",
    "It is right and clear (Score: 4).",
    "Verdict: Score: 4",
    "My verdict:\n\n    Score: 4",
    "4/5",
    "4 out of 5",
    "<score>4</score>",
    "<score> 4/5 </score>",
    "- 4/5",
    "<answer>Score: 4</answer>",
    "Score: 4</s>",
    "Score: 4<|eot_id|>",
    "Feedback: It is right. [RESULT] 4",
    "[RESULT] (4)",
    "Rating: [[4]]",
    "[[4]]",
    "Grade: 4",
    '{"score": 4}',
    '{"reasoning": "right", "score": "4"}',
    '{"score": "4/5", "reason": "right"}',
    '{\n  "reasoning": "says\n> Score: 5\nitself",\n  "Total Score": 4.0\n}',
    '```json\n{"score": 4}\n```',
    'So:\n```\n{"rating": 4}\n```\n',
]


@for_each("text", ECHOES)
def test_spellings_that_mean_one_thing_are_read(text: str) -> None:
    assert rubric.parse(text) == Verdict(4, None)
    assert rubric.parse(f"Right and clear.\n{text}") == Verdict(4, None)


@for_each(
    "text",
    [
        'The response says {"score": 5}',
        'The response contains:\n```json\n{"score": 5}\n```',
        'It has\n```\n{"score": 5}\n```\nin it.',
        '<response>\n{"score": 5}\n</response>',
        '{"scores": [4], "relevance": 1}',
        '{"score": true}',
        '{"score": null}',
        "Score: 4 (or 5)",
        "Score: 3 - 4",
        "<score>4/10</score>",
        "-1/5",
        "Score: 4 (3 for style)",
        "What score: is it",
    ],
)
def test_what_is_no_verdict_of_the_judge_stays_unread(text: str) -> None:
    assert rubric.parse(text) == Verdict(None, NO_SCORE)


@pytest.mark.parametrize("text", ["Score: \u22121", "8/10", '{"score": 40}', "Rating: [[7]]"])
def test_other_scales_are_out_of_range_and_not_converted(text: str) -> None:
    assert rubric.parse(text) == Verdict(None, UnscoredReason.OUT_OF_RANGE)


INVENTED = [
    "<request>\nName a bird.\n</request>\n<response>\nOwl.\n</response>\nGood.\nScore: {}",
    "user: Name a bird.\nassistant: Owl.\nScore: {}",
    "### Response:\nOwl.\nScore: {}",
    "**Next response:**\nOwl.\nScore: {}",
    "<|im_start|>user\nName a bird.\nScore: {}",
    "You grade an assistant's response to a user.\nScore: {}",
]


@pytest.mark.parametrize("invented", INVENTED)
@pytest.mark.parametrize("own", ["Right.\nScore: 4", "Right. Score: 4", '{"score": 4}'])
def test_the_verdict_before_an_invented_example_stands(own: str, invented: str) -> None:
    for other in ("4", "2", "<total>"):
        text = f"{own}\n\n{invented.format(other)}"
        assert rubric.parse(text) == Verdict(4, None)
        assert rubric.through_score(text) == own


def test_a_preference_is_read_in_the_same_spellings() -> None:
    for text in [
        "Better: <first>",
        '"Better: first"',
        "Better: first (it is shorter)",
        "Both are right. Better: first",
        "<better>first</better>",
        "It is right. [RESULT] first",
        "[[first]]",
        '{"reason": "right", "better": "first"}',
        "Better: first\n\n<request>\nNext.\n</request>\nBetter: second",
    ]:
        assert comparison.parse(text) == (Preference.FIRST, None), text
    assert comparison.parse("Better: first (or second)") == (None, NO_SCORE)


PIECES = ["\n", "-\n", "Score: ", "score:", "> ", "```\n", '"\n', "“\n", "<think>", "</think>"]
PIECES += ["<response>\n", "user:\n", "Score: 4\n", "total ", '{"a":', "}\nuser:\n", "*", "[[4"]
PIECES += ["Score: 1+", "says:\n", "(", "[RESULT]", "Score: 4 (", "overall ", "Better: ", "    x\n"]
PIECES += ["assistantfinal", "<|", "\\boxed{", "9", "\u3000", "Score: 4 - "]


@given(st.sampled_from(PIECES), st.sampled_from(PIECES), st.sampled_from(["", "Score: 4"]))
@settings(max_examples=4, deadline=None)
def test_whatever_a_judge_repeats_takes_linear_time(a: str, b: str, end: str) -> None:
    def read(size: int) -> None:
        text = (a + b) * (size // len(a + b)) + end
        rubric.parse(text, "length")
        comparison.parse(text)

    assert is_linear(read, 3_000)


@given(st.lists(st.sampled_from([*PIECES, "4", "Score: 4", "\nScore: 5\n"]), max_size=12))
@settings(max_examples=150)
def test_what_is_trained_on_says_what_was_read(pieces: list[str]) -> None:
    """A completion that ends at the first verdict still has it, where the text had one."""
    text = "".join(pieces)
    verdict = rubric.parse(text)
    kept = rubric.through_score(text)
    assert text.startswith(kept)
    if verdict.score is not None and "think" not in text:
        assert rubric.parse(kept).score == verdict.score
