"""Stanford Alpaca: `{"instruction", "input", "output"}`."""

from rewardloop.datasets import fields
from rewardloop.datasets.conversation import prompt_record, with_input
from rewardloop.datasets.fields import Raw
from rewardloop.records import PromptRecord


def record(raw: Raw) -> list[PromptRecord]:
    """Instruction and input, joined by a blank line; the output is the reference.

    Raises:
        ValueError: the instruction is missing, blank or not a text.
    """
    return [
        prompt_record(
            with_input(fields.text(raw, "instruction"), fields.optional_text(raw, "input")),
            fields.optional_text(raw, "output"),
            fields.source("alpaca", raw, "id"),
        )
    ]
