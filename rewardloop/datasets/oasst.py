"""Open Assistant's official tree export.

`{"message_tree_id", "tree_state", "prompt": {"text", "role", "lang", "replies": [...]}}`.
The first user's turn is the prompt, and the best-ranked answer the reference;
deeper turns are not looked at. Deleted, empty, foreign and overlong messages
are ordinary there, so they are left out and not broken.
"""

from rewardloop.datasets import fields
from rewardloop.datasets.fields import Raw
from rewardloop.datasets.sifting import Sifted, sift
from rewardloop.records import PromptRecord


def record(raw: Raw, language: str | None = None) -> list[PromptRecord]:
    """The tree's prompt with its best answer, or nothing where the prompt is left out.

    Raises:
        ValueError: the tree has no prompt, or a message of it is malformed.
    """
    prompt = sifted(raw, language).prompt
    return [prompt] if prompt else []


def sifted(raw: Raw, language: str | None) -> Sifted:
    """The tree's prompt and all the answers to it.

    Raises:
        ValueError: the tree has no prompt, or a message of it is malformed.
    """
    prompt = fields.child(raw, "prompt")
    role = fields.text(prompt, "role")
    if role != "prompter":
        raise ValueError(f'"prompt" has the role "{role}", not "prompter"')
    replies = [] if prompt.get("replies") is None else fields.children(prompt, "replies")
    return sift(prompt, replies, fields.source("oasst", raw, "message_tree_id"), language)
