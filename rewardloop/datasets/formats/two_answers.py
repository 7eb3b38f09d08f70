"""Two answers under common names (`response_a`, `answer2`), and a verdict that names one.

A verdict is a column's name, or its last letter or digit. A bare 1 beside `answer_1` and
`answer_2` may count from 0 or from 1, so it is not understood and leaves the row out.
"""

import re
from collections.abc import Sequence

from rewardloop.datasets import fields, labels
from rewardloop.datasets.form import Conversation
from rewardloop.datasets.formats import asked
from rewardloop.datasets.formats.pairs import Verdict, judged
from rewardloop.datasets.formats.shape import RowFormat, conversation
from rewardloop.datasets.row import Row

_TIES: dict[str, Verdict] = {
    "tie": "tie",
    "tie (bothbad)": "both_bad",
    "tie_bothbad": "both_bad",
    "bothbad": "both_bad",
    "both_bad": "both_bad",
}
_TEXTS = ("response", "answer", "output", "completion", "generation", "reply", "text", "option")
_MARKS = (("a", "b"), ("A", "B"), ("1", "2"), ("0", "1"))
_QUESTIONS = ("prompt", "instruction", "question", "query", "input")
_VERDICTS = (
    "winner", "preference", "preferred", "preferred_response", "choice", "label", "better", "best",
    "human_preference",
)  # fmt: skip
_COLUMNS = tuple(
    (f"{text}{joint}{first}", f"{text}{joint}{second}")
    for text in _TEXTS
    for joint in ("_", "-", "")
    for first, second in _MARKS
)
"""`response_a` and `response_b`, `answer1` and `answer2`: the columns that two answers may have."""


def _columns_of_two(filled: frozenset[str]) -> tuple[str, str] | None:
    """The columns of the row's two answers; none where it has several such pairs."""
    found = [pair for pair in _COLUMNS if pair[0] in filled and pair[1] in filled]
    return found[0] if len(found) == 1 else None


def _first_of(columns: Sequence[str], filled: frozenset[str]) -> str:
    return next((column for column in columns if column in filled), "")


def _are_two(filled: frozenset[str], _: Row) -> bool:
    return bool(
        _columns_of_two(filled) and _first_of(_QUESTIONS, filled) and _first_of(_VERDICTS, filled)
    )


def _two(row: Row) -> list[Conversation]:
    """A verdict names one of the two columns, whole ("response_a") or by its mark ("A")."""
    columns = _columns_of_two(row.filled)
    assert columns is not None
    question, column = _first_of(_QUESTIONS, row.filled), _first_of(_VERDICTS, row.filled)
    is_text = isinstance(row.peek(question), str) and question != "input"
    found = (asked.instruction if is_text else asked.prompt)(row, question)
    verdict = _by_mark(row[column], column, columns)
    texts = (fields.text(row, columns[0]), fields.text(row, columns[1]))
    candidates = judged(row, texts, verdict, found.was_rendered)
    return conversation(row, "columns", found.messages, candidates)


def _by_mark(value: object, column: str, columns: tuple[str, str]) -> Verdict:
    word = str(value).strip().lower().removesuffix(".0")
    if word in _TIES:
        return _TIES[word]
    mark = re.fullmatch(rf"(?:(?:model|{'|'.join(_TEXTS)})[-_ ]?)?([ab012])", word)
    marks = [name[-1].lower() for name in columns]
    is_bare = mark is not None and word == mark.group(1) and marks == ["1", "2"]
    if isinstance(value, bool) or mark is None or is_bare or mark.group(1) not in marks:
        raise labels.not_understood(column, value)
    return "second" if mark.group(1) == marks[1] else "first"


FORMATS: tuple[RowFormat, ...] = (RowFormat("columns", _are_two, _two),)
