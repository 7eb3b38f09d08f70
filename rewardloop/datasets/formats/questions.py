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


def _vicuna(row: Row) -> list[Conversation]:
    return conversation(row, "vicuna", asked.prompt(row, "text").messages)


def _self_instruct(row: Row) -> list[Conversation]:
    """A task becomes one prompt, from its first instance."""
    instances = fields.children(row, "instances")
    if not instances:
        raise ValueError('"instances" is empty')
    first = Row(instances[0])
    about = fields.optional_text(first, "input")
    said = fields.text(row, "instruction")
    text = f"{said}\n\n{about}" if about and said.strip() else said
    answers = candidate(first, "output", Reference())
    return conversation(row, "self_instruct", asked.in_context(row, asked.user(text)), answers)


FORMATS: tuple[RowFormat, ...] = (
    RowFormat("mt_bench", _is_mt_bench, _mt_bench),
    RowFormat("vicuna", has("question_id", "text"), _vicuna),
    RowFormat("self_instruct", has("instruction", "instances"), _self_instruct),
)
