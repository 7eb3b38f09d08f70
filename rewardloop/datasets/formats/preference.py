"""Chosen and rejected answers: TRL, HH-RLHF, UltraFeedback binarized, orca_dpo, Capybara,
LLaMA-Factory, and OpenAI's preference files.

Either side may be a text, a turn, or a whole conversation. What both sides share
is the prompt. They may differ in their last answer only: where they part
earlier, nobody can say which answer was compared.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from rewardloop.datasets import fields, labels, marks, turns
from rewardloop.datasets.form import Candidate, Conversation, Disliked, Ranked, Reference, Ungraded
from rewardloop.datasets.formats import asked, chat
from rewardloop.datasets.formats.asked import Asked
from rewardloop.datasets.formats.shape import RowFormat, conversation
from rewardloop.datasets.reasons import Reason, RowLeftOut
from rewardloop.datasets.row import Row
from rewardloop.records import Message

_PROMPTS = ("prompt", "instruction", "question", "query", "input")
_SAME_AS_CHOSEN = ("response", "completion", "output", "answer")
_SIDES = ("chosen", "rejected")
_SCORES = (
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen_rating", "rejected_rating"),
    ("rating_chosen", "rating_rejected"),
    ("chosen_reward", "rejected_reward"),
    ("chosen-rating", "rejected-rating"),
    ("chosen_avg_rating", "rejected_avg_rating"),
)
_MARGINS = ("margin", "score_margin", "reward_margin", "score_diff", "quality_gap")


@dataclass(frozen=True, slots=True)
class _Side:
    """A chosen or a rejected answer, with the turns that stand before it in its column."""

    before: list[Message]
    text: str
    is_whole: bool
    """Whether `before` begins the conversation, and does not follow the prompt."""
    was_rendered: bool


def _read(row: Row, name: str, chosen: str = "chosen", rejected: str = "rejected") -> Conversation:
    base = _base(row)
    after_marks = base is not None and base.was_rendered
    sides = [_side(row, column, after_marks) for column in (chosen, rejected)]
    messages = _prompt(row, base, [side for side in sides if side is not None])
    candidates = _candidates(row, sides[0], sides[1])
    candidates += _further(row, rejected, candidates[-1:], after_marks)
    _check_repeated(row, sides[0])
    (found,) = conversation(row, name, messages, candidates)
    return found


def _texts(value: object) -> list[str]:
    """The answers of a list of texts; none where the value is something else."""
    if not isinstance(value, list):
        return []
    return [text for text in value if isinstance(text, str)]


def _only_or_first(value: object, column: str) -> str | None:
    """The first text of a list; of chosen answers there may be one alone."""
    texts = _texts(value)
    if not texts or len(texts) != len(cast(list[object], value)):
        return None
    if len(texts) > 1 and not column.startswith("rejected"):
        raise RowLeftOut(Reason.COLUMN_NOT_READ, f'"{column}" holds several answers')
    return texts[0]


def _further(
    row: Row, rejected: str, last: Sequence[Candidate], after_marks: bool
) -> list[Candidate]:
    """Of several rejected answers all but the first; each is as good as that one."""
    others = _texts(row.listed(rejected))[1:]
    return [Candidate(marks.answer(text, after_marks), c.grade) for c in last for text in others]


def _check_repeated(row: Row, chosen: _Side | None) -> None:
    """Some copies of HH-RLHF repeat the chosen answer as `response`; another one stays unread."""
    for column in _SAME_AS_CHOSEN:
        value = row.peek(column) if column in row.filled else None
        if chosen and isinstance(value, str) and value.strip() == chosen.text.strip():
            row.used.add(column)


def _base(row: Row) -> Asked | None:
    """The prompt that stands beside the answers, where there is one."""
    for column in _PROMPTS:
        if column in row.filled:
            is_text = isinstance(row.peek(column), str)
            about = any(key in row.filled for key in asked.INPUT if key != column)
            return (
                asked.instruction(row, column) if is_text and about else asked.prompt(row, column)
            )
    return None


def _side(row: Row, column: str, after_marks: bool) -> _Side | None:
    value = row.listed(column)
    if value is None:
        return None
    if turns.is_turns(value):
        said = [turn.message for turn in turns.read(value, column)]
        if said[-1]["role"] != "assistant":
            raise RowLeftOut(
                Reason.TURNS_OUT_OF_ORDER, f'"{column}" does not end in a turn of the assistant'
            )
        before = marks.unrendered(said[:-1])
        was_rendered = after_marks or before != said[:-1]
        text = said[-1]["content"]
        text = marks.answer(text, True) if was_rendered else marks.turns_answer(text)
        return _Side(before, text, said[0]["role"] != "assistant", was_rendered)
    text = _only_or_first(value, column) or fields.text(row, column)
    split = None if after_marks else marks.split(text)
    if split and len(split) > 1 and split[-1]["role"] == "assistant":
        return _Side(split[:-1], split[-1]["content"], True, True)
    return _Side([], marks.answer(text, after_marks), False, False)


def _prompt(row: Row, base: Asked | None, sides: Sequence[_Side]) -> list[Message]:
    if len(sides) == 2 and (
        sides[0].before != sides[1].before or sides[0].is_whole != sides[1].is_whole
    ):
        raise RowLeftOut(
            Reason.DIVERGES_EARLY, "chosen and rejected differ before their last answer"
        )
    told = [*([base.messages] if base is not None else []), *_beside(row)]
    if sides and sides[0].is_whole:
        whole = sides[0].before
        _check_told(told, [*whole, {"role": "assistant", "content": sides[0].text}])
        return _with_system(row, base, whole)
    if not told:
        raise RowLeftOut(Reason.NO_PROMPT, "there are answers and no prompt that they answer")
    questions = [messages for messages in told if messages[-1]["role"] == "user"]
    before = max(questions or told, key=len)
    _check_told(told, before)
    return [*before, *(sides[0].before if sides else [])]


def _beside(row: Row) -> list[list[Message]]:
    """Conversations in columns of their own, beside the answers."""
    found = []
    for column in chat.COLUMNS:
        if column in row.filled and turns.is_turns(row.peek(column)):
            said = [turn.message for turn in turns.read(row.listed(column), column)]
            found.append(asked.in_context(row, said))
    return found


def _with_system(row: Row, base: Asked | None, whole: list[Message]) -> list[Message]:
    """The prompt's own system turn stands before conversations that have none."""
    if base is None:
        return asked.in_context(row, whole)
    if base.messages[0]["role"] != "system" or whole[0]["role"] == "system":
        return whole
    return [base.messages[0], *whole]


def _check_told(told: Sequence[Sequence[Message]], whole: Sequence[Message]) -> None:
    """The columns must tell one conversation: what stands twice must be the same."""
    rest = _plain(whole)
    for messages in told:
        said = _plain(messages)
        length = min(len(said), len(rest)) - 1
        if said[:length] != rest[:length] or not _continues(said, rest, length):
            raise RowLeftOut(Reason.COLUMNS_DISAGREE, "the prompt is not that of the answers")
    systems = {m["content"].strip() for each in (*told, whole) for m in each if _is_system(m)}
    if len(systems) > 1:
        raise RowLeftOut(Reason.COLUMNS_DISAGREE, "the columns have different system turns")


def _is_system(message: Message) -> bool:
    return message["role"] == "system"


def _plain(messages: Sequence[Message]) -> list[tuple[str, str]]:
    return [(m["role"], m["content"].strip()) for m in messages if not _is_system(m)]


def _continues(
    said: Sequence[tuple[str, str]], rest: Sequence[tuple[str, str]], length: int
) -> bool:
    """The last turn that both have may be the answer, which differs between the sides; a
    prompt of one turn may be any of the user's."""
    if len(said) == 1:
        return said[0] in rest
    last = said[length], rest[length]
    return last[0] == last[1] or last[0][0] == last[1][0] == "assistant"


def _candidates(row: Row, chosen: _Side | None, rejected: _Side | None) -> list[Candidate]:
    if chosen is None or rejected is None:
        good = [Candidate(chosen.text, Reference())] if chosen else []
        return good + ([Candidate(rejected.text, Disliked())] if rejected else [])
    if why := _no_order(row, chosen, rejected):
        row.leave_out(why)
        return [Candidate(chosen.text, Ungraded()), Candidate(rejected.text, Ungraded())]
    return [Candidate(chosen.text, Ranked(0)), Candidate(rejected.text, Ranked(1))]


def _no_order(row: Row, chosen: _Side, rejected: _Side) -> Reason | None:
    why = None
    if chosen.text.strip() == rejected.text.strip():
        why = Reason.EQUAL_SIDES
    for margin in _margins(row):
        if margin <= 0 and why is None:
            why = Reason.EQUAL_SCORES if margin == 0 else Reason.SCORES_CONTRADICT
    return why


def _margins(row: Row) -> Iterator[float]:
    """By how much the chosen answer is better, in each figure that the row has of it."""
    for good, bad in _SCORES:
        if good in row.filled and bad in row.filled:
            yield labels.number(row[good], good) - labels.number(row[bad], bad)
    for column in _MARGINS:
        if column in row.filled:
            yield labels.number(row[column], column)


def _format(name: str, *columns: str, sides: tuple[str, str] = _SIDES) -> RowFormat:
    """With `columns`, and with chosen or rejected answers."""
    wanted = frozenset(columns)

    def fits(filled: frozenset[str], _: Row) -> bool:
        return wanted <= filled and bool(set(sides) & filled)

    return RowFormat(name, fits, lambda row: [_read(row, name, *sides)])


def _are_texts(filled: frozenset[str], row: Row) -> bool:
    sides = [row.peek(column) for column in ("chosen", "rejected") if column in filled]
    return bool(sides) and all(isinstance(s, str) and not turns.is_turns(s) for s in sides)


def _read_openai(row: Row) -> list[Conversation]:
    value = row.listed("input")
    messages = value.get("messages") if isinstance(value, dict) else value
    if isinstance(value, dict):
        for key in ("tools", "functions"):
            if value.get(key):
                raise RowLeftOut(Reason.TOOL_TURNS, f'"input" holds {key}')
    before = [turn.message for turn in turns.read(messages, "input")]
    chosen, rejected = (
        _side(row, column, False) for column in ("preferred_output", "non_preferred_output")
    )
    both = [side for side in (chosen, rejected) if side is not None]
    if any(side.before for side in both):
        raise RowLeftOut(Reason.DIVERGES_EARLY, "an output holds more than one turn")
    return conversation(row, "openai", before, _candidates(row, chosen, rejected))


FORMATS: tuple[RowFormat, ...] = (
    RowFormat(
        "openai",
        lambda filled, _: {"input", "preferred_output", "non_preferred_output"} <= filled,
        _read_openai,
    ),
    _format("alpaca", "instruction"),
    _format("sharegpt", "conversations"),
    _format("capybara", "conversation"),
    _format("orca_dpo", "question"),
    _format("trl", "prompt"),
    _format("trl", "input"),
    _format("trl", "messages"),
    RowFormat(
        "hh_rlhf",
        lambda filled, row: _are_texts(filled, row),
        lambda row: [_read(row, "hh_rlhf")],
    ),
    _format("trl"),
    *(
        _format("trl", column, sides=("chosen_response", "rejected_response"))
        for column in _PROMPTS
    ),
)
