"""Conversations in one column: `messages`, `conversations`, `conversation`, `data`.

ShareGPT, OpenAI's fine-tuning files, UltraChat, no_robots, Capybara, LMSYS. The
prompt is what stands before the first answer to the user. Where the row grades
its answer, the grade is of the last one, so the prompt is what stands before that.
"""

from collections.abc import Iterable, Iterator, Sequence

from rewardloop.datasets import fields, marks, turns
from rewardloop.datasets.form import Candidate, Conversation, Reference, Ungraded
from rewardloop.datasets.formats import asked, grades
from rewardloop.datasets.formats.shape import RowFormat, conversation, has
from rewardloop.datasets.reasons import Reason, RowLeftOut
from rewardloop.datasets.row import Row, parsed
from rewardloop.datasets.turns import Turn
from rewardloop.records import Message

COLUMNS = (
    "messages", "conversations", "conversation", "dialog", "dialogue", "chat", "contents", "data"
)  # fmt: skip


def read_column(name: str, column: str) -> RowFormat:
    """The format whose conversation stands in this column."""

    def read(row: Row) -> list[Conversation]:
        return _read(row, name, column)

    return RowFormat(name, has(column), read)


def _read(row: Row, name: str, column: str) -> list[Conversation]:
    grade = grades.of(row)
    value = parsed(row[column])
    all_turns = turns.read(value, column)
    if isinstance(grade, Reference):
        before, answered = _to_first_answer(all_turns)
    else:
        before, answered = _to_last_answer(list(all_turns))
    said = asked.in_context(row, [turn.message for turn in before])
    messages = marks.unrendered(said)
    _check_repeated(row, messages, answered)
    later = _num_later(value, len(before) + (answered is not None), column)
    candidates = []
    if answered is not None:
        was_rendered = messages != said
        text = answered.content
        text = marks.answer(text, True) if was_rendered else marks.turns_answer(text)
        candidates = [Candidate(text, grade if answered.is_learnt else Ungraded())]
        if not answered.is_learnt:
            row.leave_out(Reason.NOT_LEARNT)
    return conversation(row, name, messages, candidates, num_later_turns=later)


def _num_later(value: object, num_read: int, column: str) -> int:
    """Later turns may hold anything, so a malformed one ends the count."""
    if not isinstance(value, list):
        return 0
    pairs = sum(isinstance(turn, dict) and "input" in turn and "output" in turn for turn in value)
    return max(0, len(value) + pairs - num_read)


def _to_first_answer(all_turns: Iterable[Turn]) -> tuple[list[Turn], Turn | None]:
    """To the first answer that is to be learnt; without any, to the first answer at all."""
    before: list[Turn] = []
    first: tuple[list[Turn], Turn] | None = None
    waiting = iter(all_turns)
    for turn in waiting:
        if turn.role == "assistant" and before and before[-1].role == "user":
            if turn.is_learnt:
                _check_next(waiting)
                return before, turn
            first = first or (list(before), turn)
        before.append(turn)
    return first or (before, None)


def _check_next(waiting: Iterator[Turn]) -> None:
    """An answer that goes on in a second turn, or calls a tool, is half an answer.

    What else follows may hold anything, since it is not read.
    """
    try:
        following = next(waiting, None)
    except RowLeftOut as error:
        if error.reason is Reason.TOOL_TURNS:
            raise
        return
    except ValueError:
        return
    if following is not None and following.role == "assistant":
        raise RowLeftOut(Reason.TURNS_OUT_OF_ORDER, "the answer goes on in a second turn")


def _to_last_answer(all_turns: list[Turn]) -> tuple[list[Turn], Turn | None]:
    if all_turns and all_turns[-1].role == "assistant":
        return all_turns[:-1], all_turns[-1]
    raise RowLeftOut(
        Reason.TURNS_OUT_OF_ORDER, "the row grades an answer, and its last turn is none"
    )


_QUESTIONS = ("prompt", "instruction", "question", "query")
_ANSWERS = ("response", "completion", "output", "answer")


def _check_repeated(row: Row, messages: Sequence[Message], answered: Turn | None) -> None:
    """no_robots and UltraChat repeat the first question as `prompt`, Magpie the answer too.

    Raises:
        RowLeftOut: such a column says something else than the conversation.
    """
    asked_for = {m["content"].strip() for m in messages if m["role"] == "user"}
    given = {answered.content.strip()} if answered else set()
    for columns, said in ((_QUESTIONS, asked_for), (_ANSWERS, given)):
        for column in columns:
            if column in row.filled and isinstance(row.peek(column), str):
                _check_says(row, column, said)


def _check_says(row: Row, column: str, said: set[str]) -> None:
    if fields.text(row, column).strip() not in said:
        raise RowLeftOut(
            Reason.COLUMNS_DISAGREE, f'"{column}" is no turn of the conversation beside it'
        )


def _is_transcript(filled: frozenset[str], _: Row) -> bool:
    others = {"prompt", "instruction", "question", "query", "text_a", "role"}
    return "text" in filled and not others & filled


def _transcript(row: Row) -> list[Conversation]:
    """A whole rendered conversation in `text`, as language modelling files have it."""
    split = marks.split(fields.text(row, "text"))
    if split is None:
        raise RowLeftOut(Reason.UNKNOWN_SHAPE, '"text" is no conversation, and there is no prompt')
    said = [Turn(message["role"], message["content"]) for message in split]
    grade = grades.of(row)
    to_answer = _to_first_answer if isinstance(grade, Reference) else _to_last_answer
    before, answered = to_answer(said)
    messages = asked.in_context(row, [turn.message for turn in before])
    candidates = [Candidate(answered.content, grade)] if answered else []
    later = len(said) - len(before) - len(candidates)
    return conversation(row, "transcript", messages, candidates, num_later_turns=later)


FORMATS: tuple[RowFormat, ...] = (
    read_column("trl", "messages"),
    read_column("sharegpt", "conversations"),
    read_column("conversation", "conversation"),
    read_column("conversation", "dialog"),
    read_column("conversation", "dialogue"),
    read_column("conversation", "chat"),
    read_column("conversation", "contents"),
    RowFormat(
        "ultrachat",
        lambda filled, row: "data" in filled and isinstance(row.peek("data"), list),
        lambda row: _read(row, "ultrachat", "data"),
    ),
    RowFormat("transcript", _is_transcript, _transcript),
)
