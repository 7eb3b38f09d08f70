"""Rewardloop's own seed format: `{"id", "category", "prompt", "response"}`.

Only `prompt` has to be there. The category is for people who read the file.
"""

from rewardloop.datasets import fields
from rewardloop.datasets.conversation import from_user, prompt_record
from rewardloop.datasets.fields import Raw
from rewardloop.records import PromptRecord


def record(raw: Raw) -> list[PromptRecord]:
    """The one prompt of a line.

    Raises:
        ValueError: the prompt is missing, blank or not a text.
    """
    return [
        prompt_record(
            from_user(fields.text(raw, "prompt")),
            fields.optional_text(raw, "response"),
            fields.source("seed", raw, "id"),
        )
    ]
