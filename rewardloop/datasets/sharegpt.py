"""ShareGPT: `{"conversations": [{"from", "value"}]}`.

The prompt is everything before the first answer to a user; later turns are not
looked at.
"""

from rewardloop.datasets import fields
from rewardloop.datasets.conversation import prompt_record, turns, up_to_first_answer
from rewardloop.datasets.fields import Raw
from rewardloop.records import PromptRecord, Role

_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


def record(raw: Raw) -> list[PromptRecord]:
    """The turns up to the first answer, which is the reference.

    Raises:
        ValueError: a turn up to there is malformed, or no turn of the user comes last.
    """
    conversation = fields.children(raw, "conversations")
    messages, answer = up_to_first_answer(turns(conversation, "from", "value", _ROLES))
    return [prompt_record(messages, answer, fields.source("sharegpt", raw, "id"))]
