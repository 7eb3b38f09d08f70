"""The limits that every prompt and every answer keeps, each at its last good value and the next.

Tests `rewardloop.datasets.fitness`.
"""

from typing import Any

import pytest

from rewardloop.datasets.fitness import fitted
from rewardloop.datasets.form import Candidate, Conversation, Grade, Ranked, Reference, Ungraded
from rewardloop.datasets.reasons import Reason, RowLeftOut
from rewardloop.datasets.row import Row
from rewardloop.records import Message
from tests.unit.cases import for_each
from tests.unit.datasets.rows import assistant, system, user


def fit(
    *messages: dict[str, Any], answers: tuple[tuple[str, Grade], ...] = (), source: str = "s"
) -> tuple[Conversation, list[Reason]]:
    row = Row({}, 1)
    turns: tuple[Message, ...] = tuple(messages)  # type: ignore[arg-type]
    candidates = tuple(Candidate(text, grade) for text, grade in answers)
    return fitted(row, Conversation(turns, candidates, source)), row.left_out


def refused(*messages: dict[str, Any]) -> tuple[Reason, str]:
    with pytest.raises(RowLeftOut) as caught:
        fit(*messages)
    return caught.value.reason, str(caught.value)


def talk(num_turns: int) -> list[dict[str, Any]]:
    return [(assistant if number % 2 else user)(str(number)) for number in range(num_turns)]


@for_each(
    "messages",
    [
        [user("Q")],
        [system("S"), user("Q")],
        [user("Q"), assistant("a"), user("R")],
        [system("S"), *talk(3)],
        talk(99),
        [system("S"), *talk(99)],
        [user("x" * 20_000)],
        [user("an <image> tag")],
    ],
)
def test_what_a_template_takes(messages: list[dict[str, Any]]) -> None:
    found, left_out = fit(*messages)
    assert found.messages == tuple(messages)
    assert left_out == []


@for_each(
    "messages, reason, told",
    [
        ([], Reason.PROMPT_EMPTY, "there are no turns"),
        ([user(" ")], Reason.PROMPT_EMPTY, "the prompt has no text"),
        (talk(101), Reason.TOO_MANY_TURNS, "101 turns are more than 100"),
        ([user("x" * 20_001)], Reason.PROMPT_TOO_LONG, "turn 1 has more than 20,000 characters"),
        (
            [system("S"), user("Q"), assistant(" "), user("R")],
            Reason.EMPTY_TURN,
            "turn 3 has no text",
        ),
        ([system("x\0"), user("Q")], Reason.UNSTORABLE, "turn 1: "),
        ([user("<image>\nWhat is it?")], Reason.MEDIA, "turn 1 has a picture's place in it"),
        ([user("What is it? <audio>")], Reason.MEDIA, "turn 1 has a picture's place in it"),
        (
            [user("Q"), assistant("a")],
            Reason.TURNS_OUT_OF_ORDER,
            "the prompt does not end in a turn of the user",
        ),
        (
            [system("S")],
            Reason.TURNS_OUT_OF_ORDER,
            "the prompt does not end in a turn of the user",
        ),
        (
            [user("Q"), user("R")],
            Reason.TURNS_OUT_OF_ORDER,
            "user and assistant do not take turns (user, user)",
        ),
        (
            [user("Q"), system("S"), user("R")],
            Reason.TURNS_OUT_OF_ORDER,
            "user and assistant do not take turns (user, system, user)",
        ),
        (
            [assistant("a"), *talk(9)],
            Reason.TURNS_OUT_OF_ORDER,
            f"user and assistant do not take turns (assistant{', user, assistant' * 3}, user)",
        ),
    ],
)
def test_what_no_template_takes(messages: list[dict[str, Any]], reason: Reason, told: str) -> None:
    found = refused(*messages)
    assert found[0] is reason
    assert found[1].startswith(told)


@pytest.mark.parametrize(("length", "kept", "told"), [(500, 500, []), (501, 500, ["cut_source"])])
def test_a_source_is_cut_to_what_is_stored(length: int, kept: int, told: list[str]) -> None:
    found, left_out = fit(user("Q"), source="s" * length)
    assert len(found.source) == kept
    assert left_out == told


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x" * 20_000, None),
        ("x" * 20_001, Reason.TOO_LONG),
        (" \u200b", Reason.EMPTY),
        ("\0", Reason.UNSTORABLE),
    ],
)
def test_an_unfit_answer_is_left_out_alone(text: str, why: Reason | None) -> None:
    found, left_out = fit(user("Q"), answers=((text, Reference()), ("b", Ungraded())))
    assert [candidate.text for candidate in found.candidates] == ([] if why else [text]) + ["b"]
    assert left_out == ([why] if why else [])


LOST = "x" * 20_001


@for_each(
    "answers, grades",
    [
        # Lost to an answer that is not read, and better than none: no best.
        ([(LOST, 0), ("a", 1)], [Ungraded()]),
        ([(LOST, 0), ("a", 1), ("b", 1)], [Ungraded(), Ungraded()]),
        ([(LOST, 0), (LOST, 5), ("a", 1)], [Ungraded()]),
        # Better than one that is left.
        ([(LOST, 0), ("a", 1), ("b", 2)], [Ranked(1), Ranked(2)]),
        # Not worse than the one that is not read.
        ([("a", 0), (LOST, 1)], [Ranked(0)]),
        ([("a", 1), (LOST, 1)], [Ranked(1)]),
        # None is lost.
        ([("a", 1)], [Ranked(1)]),
        ([("a", 1), ("b", 1)], [Ranked(1), Ranked(1)]),
    ],
)
def test_what_only_lost_to_an_unread_answer_has_no_rank(
    answers: list[tuple[str, int]], grades: list[Grade]
) -> None:
    found, _ = fit(user("Q"), answers=tuple((text, Ranked(rank)) for text, rank in answers))
    assert [candidate.grade for candidate in found.candidates] == grades


def test_other_grades_stay_beside_a_rank_that_is_taken_back() -> None:
    answers = ((LOST, Ranked(0)), ("a", Ranked(1)), ("b", Reference()))
    found, left_out = fit(user("Q"), answers=answers)
    assert [candidate.grade for candidate in found.candidates] == [Ungraded(), Reference()]
    assert left_out == [Reason.TOO_LONG]
