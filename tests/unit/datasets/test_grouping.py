"""What follows from all that a file says of one prompt's answers.

Tests `rewardloop.datasets.grouping`.
"""

import itertools

import pytest

from rewardloop.datasets.form import (
    Candidate,
    Conversation,
    Disliked,
    Grade,
    Liked,
    Ranked,
    Rated,
    Reference,
    Scale,
    Ungraded,
)
from rewardloop.datasets.grouping import Group, Judged, judged
from rewardloop.datasets.reasons import Reason
from tests.unit.cases import for_each

KNOWN = Scale("stars", 1, 5)
OTHER = Scale("points", 0, 10)
UNKNOWN = Scale("score")


def result(*rows: list[tuple[str, Grade]]) -> Judged:
    group = Group(({"role": "user", "content": "Q"},), "s", 1)
    for row in rows:
        candidates = tuple(Candidate(text, grade) for text, grade in row)
        group.conversations.append(Conversation(group.messages, candidates, "s"))
    return judged(group)


@for_each(
    "grade, reference, why",
    [
        (Reference(), "a", []),
        (Liked(), "a", []),
        (Disliked(), None, [Reason.DISLIKED]),
        (Ungraded(), None, [Reason.NO_GRADE]),
        (Ranked(0), "a", []),
        (Ranked(1), "a", []),
        (Ranked(2), None, [Reason.NOT_THE_BEST]),
        (Rated(3.5, KNOWN), "a", []),
        (Rated(3, KNOWN), None, [Reason.LOW_RATING]),
        (Rated(5, UNKNOWN), None, [Reason.UNKNOWN_SCALE]),
        (Rated(0, UNKNOWN), None, [Reason.LOW_RATING]),
        (Rated(-1, UNKNOWN), None, [Reason.LOW_RATING]),
    ],
)
def test_one_answer(grade: Grade, reference: str | None, why: list[Reason]) -> None:
    found = result([("a", grade)])
    assert (found.reference, list(found.not_references)) == (reference, why)
    assert found.ranking == ()
    assert found.not_ranked == (Reason.FEWER_THAN_TWO,)


ROWS: list[list[list[tuple[str, Grade]]]] = [
    [[("bad", Disliked())], [("good", Liked())]],
    [[("bad", Rated(2, UNKNOWN))], [("good", Rated(9, UNKNOWN))]],
    [[("good", Ranked(0)), ("bad", Ranked(1))], [("bad", Ranked(0)), ("worse", Ranked(1))]],
    [[("bad", Disliked())], [("good", Reference())]],
    [[("good", Reference())], [("good", Reference())]],
    [[("a bad one", Rated(1, KNOWN))], [("good", Rated(4, KNOWN))], [("fair", Rated(3, KNOWN))]],
    [[("bad", Reference())], [("bad", Disliked())], [("good", Liked())]],
]


@pytest.mark.parametrize("rows", ROWS)
def test_the_rows_order_makes_no_difference(rows: list[list[tuple[str, Grade]]]) -> None:
    found = {result(*order) for order in itertools.permutations(rows)}
    assert len(found) == 1
    assert found.pop().reference == "good"


def test_thumbs_are_two_ranks() -> None:
    found = result([("a", Disliked())], [("b", Liked())], [("c", Disliked())])
    assert [(r.text, r.rank) for r in found.ranking] == [("b", 0), ("a", 1), ("c", 1)]


def test_an_answer_that_is_liked_and_disliked_is_in_no_order() -> None:
    found = result([("a", Disliked())], [("a", Liked())], [("b", Liked())])
    assert (found.reference, found.ranking) == ("b", ())


def test_ratings_of_two_scales_are_not_compared() -> None:
    found = result([("a", Rated(5, KNOWN))], [("b", Rated(9, OTHER))])
    assert found.ranking == ()
    assert Reason.ORDER_NOT_TOLD in found.not_ranked
    assert found.reference == "a"


def test_two_scales_that_disagree_are_contradictory() -> None:
    found = result(
        [("a", Rated(5, KNOWN)), ("b", Rated(4, KNOWN))],
        [("a", Rated(6, OTHER)), ("b", Rated(9, OTHER))],
    )
    assert (found.reference, found.ranking) == (None, ())
    assert found.not_ranked.count(Reason.CONTRADICTORY_ORDER) == 2


def test_equal_texts_are_one_answer() -> None:
    found = result([("e\u0301t\u00e9 ", Ranked(0)), ("b", Ranked(1))], [("\u00e9t\u00e9", Liked())])
    assert len(found.ranking) == 2
    assert found.reference == found.ranking[0].text


def test_of_a_text_that_stands_twice_in_a_row_the_better_rank_counts() -> None:
    found = result([("a", Ranked(2)), ("b", Ranked(1)), ("a", Ranked(0)), ("c", Ranked(3))])
    assert [(r.text, r.rank) for r in found.ranking] == [("a", 0), ("b", 1), ("c", 3)]
    assert found.not_ranked == (Reason.REPEATED_TEXT,)


def test_several_references_leave_one() -> None:
    found = result([("b", Reference())], [("a", Reference())])
    assert found.reference == "a"
    assert found.not_references == (Reason.OTHER_REFERENCES,)


def test_more_answers_than_can_be_stored() -> None:
    found = result([(f"{n:03}", Ranked(n)) for n in range(101)])
    assert found.ranking == ()
    assert found.not_ranked == (Reason.TOO_MANY_RESPONSES,)
    assert found.reference == "000"


def test_all_of_one_rank() -> None:
    found = result([("a", Ranked(0)), ("b", Ranked(0))])
    assert (found.reference, found.ranking) == (None, ())
    assert found.not_ranked == (Reason.NO_ORDER,)


def test_two_that_are_tied_are_not_graded_rather_than_beaten() -> None:
    found = result([("a", Ranked(1)), ("b", Ranked(1))])
    assert found.not_references == (Reason.NO_GRADE, Reason.NO_GRADE)
    beaten = result([("a", Ranked(1)), ("b", Ranked(2))])
    assert (beaten.reference, beaten.not_references) == ("a", (Reason.NOT_THE_BEST,))
