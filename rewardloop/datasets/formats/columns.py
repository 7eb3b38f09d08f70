"""Question and answer in two columns: Alpaca, Dolly, OpenOrca, KTO, TRL, our own seeds.

An answer that the row does not grade is a reference; with a label it is liked or
disliked, with a rating it is rated.
"""

from collections.abc import Sequence

from rewardloop.datasets import fields, marks, turns
from rewardloop.datasets.form import Candidate, Conversation, Ungraded
from rewardloop.datasets.formats import asked, grades
from rewardloop.datasets.formats.shape import RowFormat, conversation, has
from rewardloop.datasets.reasons import Reason, RowLeftOut
from rewardloop.datasets.row import Row

_ANSWERS = ("response", "completion", "output", "answer", "target")
_QUESTIONS = ("prompt", "instruction", "question", "query")


def _two(name: str, question: str, answers: Sequence[str]) -> RowFormat:
    def read(row: Row) -> list[Conversation]:
        column = next((key for key in answers if key in row.filled), answers[0])
        return _read(row, name, question, column)

    wanted = frozenset(answers)
    return RowFormat(name, lambda filled, _: question in filled and bool(wanted & filled), read)


def _alone(name: str, question: str) -> RowFormat:
    return RowFormat(name, has(question), lambda row: _read(row, name, question, "response"))


_TURN_NUMBERS = ("turn", "turn_id", "turn_idx", "turn_index", "turn_no", "turn_number")


def _check_turn(row: Row) -> None:
    """
    Raises:
        RowLeftOut: the row is a later turn, and what was said before stands in other rows.
    """
    if any(column in row.filled for column in asked.HISTORY):
        return
    for column in _TURN_NUMBERS:
        value = str(row.peek(column)).removesuffix(".0")
        if value.isdecimal() and int(value) > 1:
            detail = f'its "{column}" is {value}, and the earlier turns are not in the row'
            raise RowLeftOut(Reason.COLUMN_NOT_READ, detail)


def _read(row: Row, name: str, question: str, answer: str) -> list[Conversation]:
    value = row.peek(question)
    is_text = isinstance(value, str) and not turns.is_turns(value)
    if is_text:
        _check_turn(row)
    found = asked.instruction(row, question) if is_text else asked.prompt(row, question)
    grade = grades.of(row) if answer in row.filled else None
    candidates = []
    if grade is not None:
        text, is_learnt = _answer(row, answer, found.was_rendered)
        candidates = [Candidate(text, grade if is_learnt else Ungraded())]
    elif answer in row and row[answer] is not None and not isinstance(row[answer], str | list):
        fields.text(row, answer)  # Tells what else it is.
    return conversation(row, name, found.messages, candidates)


def _answer(row: Row, column: str, after_marks: bool) -> tuple[str, bool]:
    value = row.listed(column)
    if isinstance(value, list) and value and not turns.is_turns(value):
        raise RowLeftOut(Reason.COLUMN_NOT_READ, f'"{column}" holds several answers ungraded')
    if not isinstance(value, str) and turns.is_turns(value):
        found = list(turns.read(value, column))
        if len(found) != 1 or found[0].role != "assistant":
            raise RowLeftOut(
                Reason.TURNS_OUT_OF_ORDER, f'"{column}" is not one turn of the assistant'
            )
        return marks.answer(found[0].content, after_marks), found[0].is_learnt
    return marks.answer(fields.text(row, column), after_marks), True


FORMATS: tuple[RowFormat, ...] = (
    _two("alpaca", "instruction", ("output",)),
    _two("dolly", "instruction", ("response",)),
    _two("openorca", "question", ("response",)),
    RowFormat(
        "seed",
        lambda filled, _: "prompt" in filled and bool({"response", "category"} & filled),
        lambda row: _read(row, "seed", "prompt", _answer_column(row, "response")),
    ),
    _two("trl", "prompt", ("completion",)),
    *(_two("columns", question, _ANSWERS) for question in _QUESTIONS),
)


def _answer_column(row: Row, first: str) -> str:
    return first if first in row.filled else next((a for a in _ANSWERS if a in row.filled), first)


PROMPTS_ALONE: tuple[RowFormat, ...] = (
    _alone("trl", "prompt"),
    _alone("seed", "prompt"),
    _alone("alpaca", "instruction"),
    _alone("columns", "question"),
)
