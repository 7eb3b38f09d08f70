"""What of a pushed request is stored, and what is said of the rest."""

from rewardloop.datasets.admission import Admission
from rewardloop.datasets.reasons import Reason
from rewardloop.records import Message, RankedText

ASKED: list[Message] = [{"role": "user", "content": "q"}]


def ranked(*answers: tuple[str, int]) -> list[RankedText]:
    return [RankedText(text, rank) for text, rank in answers]


def test_the_first_place_and_the_number_of_each_reason_are_told() -> None:
    admission = Admission()
    turns: list[list[Message]] = [ASKED, [], [*ASKED, *ASKED], [*ASKED, *ASKED]]
    found = [admission.prompt(number, turn, None, "api") for number, turn in enumerate(turns)]
    assert [record is not None for record in found] == [True, False, False, False]
    counts = {reason: (told.count, told.first) for reason, told in admission.left_out.items()}
    assert counts == {
        Reason.PROMPT_EMPTY: (1, "prompts.1"),
        Reason.TURNS_OUT_OF_ORDER: (2, "prompts.2"),
    }
    assert not admission.is_whole
    assert admission.told().startswith("1 prompt_empty (first prompts.1: ")


def test_the_given_reference_stays_beside_a_ranking() -> None:
    admission = Admission()
    found = admission.ranking(0, ASKED, "given", "api", ranked(("worse", 3), ("better", 1)))
    assert found is not None
    assert found.prompt.reference == "given"
    assert found.responses == (RankedText("better", 1), RankedText("worse", 3))
    assert admission.left_out == {}


def test_a_ranking_without_a_reference_gets_none() -> None:
    found = Admission().ranking(0, ASKED, None, "api", ranked(("a", 0), ("b", 1)))
    assert found is not None
    assert found.prompt.reference is None


def test_a_tie_and_a_cut_source_are_told_and_leave_nothing_out() -> None:
    admission = Admission()
    found = admission.ranking(0, ASKED, None, "s" * 501, ranked(("a", 0), ("b", 1), ("c", 1)))
    assert found is not None
    assert len(found.prompt.source) == 500
    assert set(admission.left_out) == {Reason.CUT_SOURCE, Reason.EQUAL_RANKS}
    assert admission.is_whole


def test_what_only_lost_to_an_answer_that_is_too_long_is_not_called_the_best() -> None:
    admission = Admission()
    answers = ranked(("z" * 20_001, 0), ("a", 1))
    assert admission.ranking(0, ASKED, None, "api", answers) is None
    assert admission.left_out[Reason.TOO_LONG].count == 1


def test_a_text_of_invisible_characters_is_no_text() -> None:
    admission = Admission()
    invisible: list[Message] = [{"role": "user", "content": "\u200b\ufeff"}]
    assert admission.prompt(0, invisible, None, "api") is None
    record = admission.prompt(1, ASKED, "\u2060 \n", "api")
    assert record is not None
    assert record.reference is None
    assert list(admission.left_out) == [Reason.PROMPT_EMPTY, Reason.EMPTY]


def test_what_may_not_be_imitated_stays_so_under_its_better_rank() -> None:
    responses = [RankedText("a", 0), RankedText("b", 1, imitate=False), RankedText(" b", 2)]
    found = Admission().ranking(0, ASKED, None, "api", responses)
    assert found is not None
    assert found.responses == (RankedText("a", 0), RankedText("b", 1, imitate=False))
