"""Exports of annotation tools: Argilla (versions 1 and 2) and Label Studio.

A record holds fields (what annotators saw), and their responses. Each response
is a conversation of its own with the same prompt, so that annotators who
disagree are seen to disagree. Discarded and cancelled ones are left out, and
suggestions, which a model made, are not read.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from rewardloop.datasets import fields, labels, meaning, turns
from rewardloop.datasets.fields import Raw
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
from rewardloop.datasets.formats import asked
from rewardloop.datasets.formats.shape import RowFormat, source
from rewardloop.datasets.reasons import Reason, RowLeftOut
from rewardloop.datasets.row import Row, is_filled, parsed
from rewardloop.records import Message

_PROMPTS = ("prompt", "instruction", "question", "query", "messages", "context", "input", "text")
_ANSWER = re.compile(
    r"^(response|answer|completion|generation|output|reply|text|option)[-_ ]?(\w?)$"
)
_NOT_ANSWERED = re.compile(
    r"(-suggestion|-suggestion-metadata|\.suggestion(\.\w+)?|\.responses\.(users|status))$"
)
"""Columns beside a question's answers: what a model suggested, and who answered."""
_REMARK = re.compile(
    r"(^|[-_ ])(comments?|notes?|reasons?|rationale|explanation|justification|remarks?|feedback"
    r"|why)([-_ ]|$)"
)
_CORRECTION = re.compile(
    r"(^|[-_ ])(correct(ed|ion)|edit(ed)?|improved|rewritten|rewrite|revised|fixed)([-_ ]|$)"
)
_OUT = frozenset({"discarded", "draft", "rejected", "cancelled", "skipped"})
_TIES = frozenset({"tie", "equal", "both", "same", "no preference", "none"})


@dataclass(frozen=True, slots=True)
class _Given:
    """One annotator's value for one question."""

    question: str
    value: object
    status: str = "submitted"
    answer: str = ""
    """The field that it is about, where it is about one of several answers."""

    @property
    def is_remark(self) -> bool:
        """A comment says something about the record, and is no answer to it."""
        return bool(_REMARK.search(self.question.lower())) and not labels.is_word(self.value)

    @property
    def is_correction(self) -> bool:
        return isinstance(self.value, str) and bool(_CORRECTION.search(self.question.lower()))


def _conversations(
    row: Row, name: str, shown: Mapping[str, object], given: Sequence[_Given]
) -> list[Conversation]:
    messages, answers = _prompt(row, shown), _answers(shown)
    found = []
    for each in given:
        if each.status.lower() in _OUT:
            row.leave_out(Reason.REJECTED_BY_REVIEWERS)
        elif is_filled(each.value) and not each.is_remark:
            candidates = _candidates(each, answers)
            found.append(Conversation(tuple(messages), tuple(candidates), source(row, name)))
    if not found:
        row.leave_out(Reason.NOT_ANNOTATED)
        ungraded = tuple(Candidate(text, Ungraded()) for text in answers.values())
        found.append(Conversation(tuple(messages), ungraded, source(row, name)))
    return found


def _prompt(row: Row, shown: Mapping[str, object]) -> list[Message]:
    column = next((key for key in _PROMPTS if is_filled(shown.get(key))), None)
    if column is None:
        raise RowLeftOut(Reason.NO_PROMPT, f"no field is a prompt ({', '.join(sorted(shown))})")
    inner = Row(shown, row.line)
    has_input = isinstance(shown[column], str) and column not in asked.INPUT
    found = (asked.instruction if has_input else asked.prompt)(inner, column)
    row.used |= inner.used & row.filled
    inner.used.update(key for key in shown if _ANSWER.match(key.lower()))
    meaning.unread(inner)
    return found.messages


def _answers(shown: Mapping[str, object]) -> dict[str, str]:
    prompt = next((key for key in _PROMPTS if is_filled(shown.get(key))), None)
    found: dict[str, str] = {}
    for key, value in shown.items():
        if key != prompt and _ANSWER.match(key.lower()) and is_filled(value):
            found[key] = turns.content(value, key)
    return found


def _candidates(given: _Given, answers: Mapping[str, str]) -> list[Candidate]:
    value = given.value if given.is_correction else parsed(given.value)
    if given.answer:
        rating = labels.number(value, given.question)
        return [Candidate(answers[given.answer], Rated(rating, _scale(given)))]
    if given.is_correction and not labels.is_word(value):
        better = Candidate(turns.content(value, given.question), Reference())
        return [better, *(Candidate(text, Ungraded()) for text in answers.values())]
    if isinstance(value, list | dict):
        return _by_rank(given, value, answers)
    if not answers:
        return [Candidate(turns.content(value, given.question), Reference())]
    if len(answers) == 1:
        (text,) = answers.values()
        return [Candidate(text, _grade(given, value))]
    return _by_choice(given, value, answers)


def _scale(given: _Given) -> Scale:
    """`rating_a` and `rating_b` are one scale, on which two answers are rated."""
    name = given.question.removesuffix(given.answer)
    return Scale(re.sub(r"[-_ ]?\d$|[-_ ][a-zA-Z]$|[-_ ]$", "", name))


def _grade(given: _Given, value: object) -> Grade:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Rated(labels.number(value, given.question), Scale(given.question))
    return Liked() if labels.is_liked(value, given.question) else Disliked()


def _by_choice(given: _Given, value: object, answers: Mapping[str, str]) -> list[Candidate]:
    word = str(value).strip().lower()
    names = list(answers)
    if word in _TIES:
        return [Candidate(text, Ranked(0)) for text in answers.values()]
    chosen = _named(word, names)
    if chosen is None or len(names) != 2:
        raise labels.not_understood(given.question, value)
    return [Candidate(text, Ranked(int(name != chosen))) for name, text in answers.items()]


def _named(word: str, names: Sequence[str]) -> str | None:
    """The answer that a value names: its field, its mark, or its side of the screen."""
    plain = {_plain(name): name for name in names}
    if _plain(word) in plain:
        return plain[_plain(word)]
    if word in ("left", "right") and len(names) == 2:
        return names[word == "right"]
    ends = {name[-1].lower(): name for name in names}
    return ends.get(word) if len(ends) == len(names) else None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _by_rank(given: _Given, value: object, answers: Mapping[str, str]) -> list[Candidate]:
    ranks = {
        _plain(str(name)): labels.rank(rank, f'"{name}"') for name, rank in _ranks(given, value)
    }
    unknown = set(ranks) - {_plain(name) for name in answers}
    if unknown or not ranks:
        raise labels.not_understood(given.question, value)
    return [
        Candidate(text, Ranked(ranks[_plain(name)]) if _plain(name) in ranks else Ungraded())
        for name, text in answers.items()
    ]


def _ranks(given: _Given, value: object) -> Iterator[tuple[object, object]]:
    """Rankings are lists of `{"value", "rank"}`, or the two lists in one object."""
    if isinstance(value, dict):
        names, ranks = value.get("value"), value.get("rank")
        if isinstance(names, list) and isinstance(ranks, list) and len(names) == len(ranks):
            yield from zip(names, ranks, strict=True)
            return
    elif isinstance(value, list):
        for element in value:
            if not isinstance(element, dict) or not is_filled(element.get("rank")):
                raise labels.not_understood(given.question, value)
            yield element.get("value"), element["rank"]
        return
    raise labels.not_understood(given.question, value)


def _argilla_record(row: Row) -> list[Conversation]:
    """`{"fields", "responses", "suggestions", "status"}`, as the clients write JSON."""
    shown = fields.child({"fields": row.listed("fields")}, "fields")
    responses = row.listed("responses")
    given = list(_given_v1(responses) if isinstance(responses, list) else _given_v2(responses))
    return _conversations(row, "argilla", shown, given)


def _given_v1(responses: Sequence[object]) -> Iterator[_Given]:
    for response in responses:
        if not isinstance(response, dict):
            raise ValueError('"responses" holds what is no object')
        values = response.get("values")
        for question, value in (values if isinstance(values, dict) else {}).items():
            inner = value.get("value") if isinstance(value, dict) else value
            yield _Given(question, inner, str(response.get("status") or "submitted"))


def _given_v2(responses: object) -> Iterator[_Given]:
    for question, values in (responses if isinstance(responses, dict) else {}).items():
        for value in values if isinstance(values, list) else [values]:
            yield _one(question, value)


def _one(question: str, value: object) -> _Given:
    if isinstance(value, dict) and "value" in value and "rank" not in value:
        return _Given(question, value["value"], str(value.get("status") or "submitted"))
    return _Given(question, value)


def _argilla_columns(row: Row) -> list[Conversation]:
    """Version 1's datasets: a column a question, with lists of `{"value", "user_id", "status"}`;
    version 2's: `question.responses` beside `question.responses.status`."""
    given: list[_Given] = []
    shown: dict[str, object] = {}
    for column in sorted(row.filled):
        value = parsed(row.peek(column))
        if _NOT_ANSWERED.search(column):
            row.pass_over(column)
        elif column.endswith(".responses"):
            given += _with_status(row, column)
        elif _is_question(value):
            row.listed(column)
            given += [_one(column, element) for element in cast(list[object], value)]
        elif isinstance(value, str) or turns.is_turns(value):
            shown[column] = value
    found = _conversations(row, "argilla", shown, given)
    row.used.update(key for key in shown if _ANSWER.match(key.lower()))
    return found


def _with_status(row: Row, column: str) -> Iterator[_Given]:
    values, statuses = row.listed(column), row.listed(f"{column}.status")
    if not isinstance(values, list):
        raise ValueError(f'"{column}" is {fields.kind_of(values)}, not a list')
    for number, value in enumerate(values):
        status = statuses[number] if isinstance(statuses, list) and number < len(statuses) else None
        yield _Given(column.removesuffix(".responses"), value, str(status or "submitted"))


def _is_question(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(v, dict) and "value" in v and "from" not in v for v in value)
    )


def _is_argilla_columns(filled: frozenset[str], row: Row) -> bool:
    return any(key.endswith((".responses", "-suggestion", ".suggestion")) for key in row)


def _label_studio(row: Row) -> list[Conversation]:
    shown = fields.child({"data": row.listed("data")}, "data")
    answers = _answers(shown)
    given: list[_Given] = []
    for annotation in fields.children({"a": row.listed("annotations")}, "a"):
        status = "cancelled" if annotation.get("was_cancelled") is True else "submitted"
        for result in fields.children(annotation, "result"):
            given.append(_result(result, answers, status))
    return _conversations(row, "label_studio", shown, given)


def _result(result: Raw, answers: Mapping[str, str], status: str) -> _Given:
    value = fields.child(result, "value")
    question = str(result.get("from_name") or result.get("type") or "result")
    if "selected" in value:
        return _Given(question, value["selected"], status)
    if "rating" in value and len(answers) == 1:
        return _Given(question, value["rating"], status)
    if "rating" in value and str(result.get("to_name")) in answers:
        return _Given(question, value["rating"], status, str(result["to_name"]))
    for key in ("choices", "text"):
        inner = value.get(key)
        if isinstance(inner, list) and len(inner) == 1:
            return _Given(question, inner[0], status)
        if isinstance(inner, str):
            return _Given(question, inner, status)
    raise labels.not_understood(question, dict(value))


FORMATS: tuple[RowFormat, ...] = (
    RowFormat(
        "label_studio",
        lambda filled, row: "data" in filled and "annotations" in row,
        _label_studio,
        passes_over=("predictions", "drafts"),
    ),
    RowFormat(
        "argilla",
        lambda filled, row: (
            "fields" in filled and ({"responses", "suggestions"} & set(row)) != set()
        ),
        _argilla_record,
        passes_over=("suggestions", "vectors"),
    ),
    RowFormat("argilla", _is_argilla_columns, _argilla_columns),
)
