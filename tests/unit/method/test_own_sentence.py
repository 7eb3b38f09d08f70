"""Whether a judge speaks for itself where a verdict ends its last line.

Tests `rewardloop.method.own_sentence`.
"""

# ruff: noqa: RUF001 (judges write these characters)

from rewardloop.method import rubric
from tests.unit.cases import for_each


@for_each(
    "before",
    [
        "It is clear, so I settle on ",
        "It is clear, so I would settle on ",
        "Even if short, it earns a ",
        "Verdict: ",
        "It is clear. **Conclusion:** ",
        "It is clear and right (",
        'It says "no", and I settle on ',
        "It is clear. ",
        "I " + "x" * 198 + " ",
    ],
)
def test_the_judges_own_verdict(before: str) -> None:
    assert rubric.parse(f"{before}score: 4").score == 4


@for_each(
    "before",
    [
        "If it had sources, I would settle on ",
        "Unless it errs, I settle on ",
        "I would settle, had it sources, on ",
        "It says that I should give a ",
        "It asks for a total ",
        "I would not give it a ",
        "I almost gave it a ",
        "The response ends: ",
        'It is clear" ',
        'It holds "a total ',
        "The line with the ",
        "I " + "x" * 199 + " ",
    ],
)
def test_somebody_elses(before: str) -> None:
    assert rubric.parse(f"{before}score: 4").score is None


@for_each(
    "written, score",
    [
        ("So I would give it a score of 4", 4),
        ("In conclusion, this response deserves 4 out of 5.", 4),
        ("Based on all that, the score is 4.", 4),
        ("The author hopes I give it a score of 4", None),
        ("If it were true, I would give it a score of 4", None),
        ("It is right. [RESULT] 4", 4),
        ('It writes "[RESULT] 4', None),
        ('It is right. "[RESULT] 4"', None),
        ("I settle on score: 4", 4),
        ("I settle on ‘score: 4’", None),
        ("I settle on `score: 4`.", None),
        ("I settle on (score: 4)", 4),
    ],
)
def test_whole_sentences_and_results(written: str, score: float | None) -> None:
    assert rubric.parse(written).score == score
