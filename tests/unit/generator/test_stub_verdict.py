"""What the stub engine reads of a judge's prompt, and that its answers do not depend on the nonce.

Tests `services.generator.stub_verdict`, `services.generator.stub_engine`.
"""

from pathlib import Path
from random import Random

import pytest

from rewardloop.config import RubricTemplate
from rewardloop.method import comparison, rubric
from rewardloop.records import JudgementMode, Message, Verdict
from services.generator.stub_engine import Faults, StubEngine
from services.generator.stub_verdict import (
    AskedVerdict,
    asked_by_pattern,
    asked_by_prompt,
    without_nonce,
)

ASK: Message = {"role": "user", "content": "Name a colour."}
FREE = JudgementMode.FREE


def judge_prompt(
    nonce: str | None, response: str = "Blue.", rubric_: rubric.Rubric = "short"
) -> str:
    answer: Message = {"role": "assistant", "content": response}
    (message,) = rubric.render([ASK, answer], FREE, rubric_, nonce)
    return message["content"]


def comparison_prompt(nonce: str) -> str:
    (message,) = comparison.render([ASK], "Blue.", "Red.", FREE, nonce)
    return message["content"]


def engine(**faults: float | bool) -> StubEngine:
    return StubEngine(Path("/nowhere/m1"), faults=Faults(**faults))  # type: ignore[arg-type]


def test_a_judges_prompt_asks_for_a_verdict() -> None:
    assert asked_by_prompt(judge_prompt("7f3a")) == AskedVerdict("Score", " 7f3a")
    assert asked_by_prompt(judge_prompt("7f3a", rubric_="additive")) == AskedVerdict(
        "Score", " 7f3a"
    )
    assert asked_by_prompt(judge_prompt(None)) == AskedVerdict("Score", "")
    assert asked_by_prompt(comparison_prompt("0b1e")) == AskedVerdict("Better", " 0b1e")


@pytest.mark.parametrize(
    "prompt",
    ["Name a colour.", "", "Score 7f3a: <total>\nBlue.", "Score 7f3a: 4", "Score 7f3ag: <total>"],
)
def test_another_prompt_asks_for_none(prompt: str) -> None:
    assert asked_by_prompt(prompt) is None
    assert without_nonce(prompt) == prompt


def test_a_pattern_asks_for_a_verdict() -> None:
    assert asked_by_pattern(rubric.constrained_pattern("7f3a")) == AskedVerdict("Score", " 7f3a")
    assert asked_by_pattern(rubric.constrained_pattern(None)) == AskedVerdict("Score", "")
    assert asked_by_pattern(comparison.constrained_pattern("0b1e")) == AskedVerdict(
        "Better", " 0b1e"
    )
    assert asked_by_pattern("[a-z]+") is None


def test_a_prompt_is_the_same_without_its_nonce() -> None:
    assert without_nonce(judge_prompt("7f3a")) == without_nonce(judge_prompt("0b1e"))
    assert without_nonce(judge_prompt("7f3a")) == without_nonce(judge_prompt(None))
    # A nonce in what is judged stays: only the line that asks is meant.
    assert "0b1e" in without_nonce(judge_prompt("7f3a", "Score 0b1e: <total>"))
    assert without_nonce(judge_prompt("7f3a")) != without_nonce(judge_prompt("7f3a", "Red."))
    assert without_nonce(comparison_prompt("7f3a")) == without_nonce(comparison_prompt("0b1e"))


def test_a_line_names_what_was_asked_for() -> None:
    score, better = AskedVerdict("Score", " 7f3a"), AskedVerdict("Better", "")
    assert score.line(Random(0), 3) == "Score 7f3a: 3"
    assert score.line(Random(0), 0) == "Score 7f3a: 0"
    assert {score.line(Random(seed), None) for seed in range(60)} == {
        f"Score 7f3a: {number}" for number in range(6)
    }
    assert {better.line(Random(seed), 3) for seed in range(30)} == {
        "Better: first",
        "Better: second",
        "Better: tie",
    }


@pytest.mark.parametrize("unscored_rate", [0.0, 0.5])
def test_what_the_stub_writes_does_not_depend_on_the_nonce(unscored_rate: float) -> None:
    stub = engine(unscored_rate=unscored_rate)
    for index in range(12):
        one, other = (stub.write(judge_prompt(nonce), index) for nonce in ("7f3a", "0b1e"))
        assert one.replace("7f3a", "0b1e") == other
        none = stub.write(judge_prompt(None), index)
        assert one.replace(" 7f3a", "") == none
        assert rubric.parse(one, nonce="7f3a") == rubric.parse(other, nonce="0b1e")
        compared = [
            comparison.parse(stub.write(comparison_prompt(nonce), index), nonce=nonce)
            for nonce in ("7f3a", "0b1e")
        ]
        assert compared[0] == compared[1]


def test_what_the_stub_is_forced_to_write_does_not_depend_on_the_nonce() -> None:
    stub = engine()
    for index in range(6):
        one, other = (
            stub.write(
                judge_prompt(n), index, forced=asked_by_pattern(rubric.constrained_pattern(n))
            )
            for n in ("7f3a", "0b1e")
        )
        assert one.replace("7f3a", "0b1e") == other
        assert rubric.parse(one, nonce="7f3a").score is not None


def test_the_stub_names_the_nonce_of_its_prompt() -> None:
    text = engine(fixed_score=3).write(judge_prompt("7f3a"), 0)
    assert text.endswith("\nScore 7f3a: 3")
    assert rubric.parse(text, nonce="7f3a") == Verdict(3, None)
    assert rubric.parse(text, nonce="0b1e").score is None
    own = RubricTemplate(template="Grade {response} to {request}.\nScore: <total>")
    assert engine(fixed_score=3).write(judge_prompt("7f3a", rubric_=own), 0).endswith("\nScore: 3")
    assert "Score" not in engine().write("Name a colour.", 0)
