"""Self-Instruct's seed tasks: `{"id", "name", "instruction", "instances": [{"input", "output"}]}`.

A task becomes one prompt, from its first instance.
"""

from rewardloop.datasets import fields
from rewardloop.datasets.conversation import prompt_record, with_input
from rewardloop.datasets.fields import Raw
from rewardloop.records import PromptRecord


def record(raw: Raw) -> list[PromptRecord]:
    """Instruction and the first instance's input; its output is the reference.

    Raises:
        ValueError: the instruction is blank, or there is no instance.
    """
    instances = fields.children(raw, "instances")
    if not instances:
        raise ValueError('"instances" is empty')
    first = instances[0]
    return [
        prompt_record(
            with_input(fields.text(raw, "instruction"), fields.optional_text(first, "input")),
            fields.optional_text(first, "output"),
            fields.source("self_instruct", raw, "id"),
        )
    ]
