"""Benchmarks and seed tasks: MT-Bench, Vicuna's questions, Self-Instruct."""

from typing import cast

from rewardloop.datasets import fields
from rewardloop.datasets.form import Candidate, Conversation, Reference
from rewardloop.datasets.formats import asked
from rewardloop.datasets.formats.shape import RowFormat, candidate, conversation, has
from rewardloop.datasets.row import Row


def _mt_bench(row: Row) -> list[Conversation]:
    """The first turn is the prompt; the later ones need an answer of their own to it."""
    turns = _texts(row, "turns")
    references = _texts(row, "reference") if "reference" in row.filled else []
    answers = [Candidate(references[0], Reference())] if references else []
    return conversation(
        row,
        "mt_bench",
        asked.in_context(row, asked.user(turns[0])),
        answers,
        num_later_turns=len(turns) - 1,
    )


def _texts(row: Row, column: str) -> list[str]:
    value = row.listed(column)
    if not isinstance(value, list) or not value:
        raise ValueError(f'"{column}" is {fields.kind_of(value)}, not a list of texts')
    for element in value:
        if not isinstance(element, str):
            raise ValueError(f'"{column}" holds {fields.kind_of(element)}, not a text')
    return cast(list[str], value)


def _is_mt_bench(filled: frozenset[str], row: Row) -> bool:
    return (
        "turns" in filled
        and isinstance(row.peek("turns"), list | str)
        and not ({"prompt", "messages", "conversation"} & filled)
    )


def _is_question(filled: frozenset[str], _: Row) -> bool:
    """Files of answers have `question_id` and `text` too, and an `answer_id`."""
    return {"question_id", "text"} <= filled and "answer_id" not in filled


def _vicuna(row: Row) -> list[Conversation]:
    return conversation(row, "vicuna", asked.prompt(row, "text").messages)


def _self_instruct(row: Row) -> list[Conversation]:
    """Each instance of a task is a prompt."""
    instances = fields.children(row, "instances")
    if not instances:
        raise ValueError('"instances" is empty')
    said = fields.text(row, "instruction")
    return [_instance(row, said, Row(instance)) for instance in instances]


def _instance(row: Row, said: str, instance: Row) -> Conversation:
    about = fields.optional_text(instance, "input")
    text = f"{said}\n\n{about}" if about and said.strip() else said
    answers = candidate(instance, "output", Reference())
    messages = asked.in_context(row, asked.user(text))
    (found,) = conversation(row, "self_instruct", messages, answers)
    return found


FORMATS: tuple[RowFormat, ...] = (
    RowFormat("mt_bench", _is_mt_bench, _mt_bench),
    RowFormat("vicuna", _is_question, _vicuna),
    RowFormat("self_instruct", has("instruction", "instances"), _self_instruct),
)
