"""Open Assistant's official tree export.

`{"message_tree_id", "tree_state", "prompt": {"text", "role", "lang", "replies": [...]}}`.
The first user's turn is the prompt, and the best-ranked answer the reference.
Deleted, empty and foreign messages are ordinary there, so they are filtered
and not broken.
"""

from rewardloop.datasets import fields
from rewardloop.datasets.conversation import from_user, prompt_record
from rewardloop.datasets.fields import Raw
from rewardloop.records import PromptRecord


def record(raw: Raw, language: str | None = None) -> list[PromptRecord]:
    """The tree's prompt, or nothing where it is deleted, empty or in another language.

    Raises:
        ValueError: the tree has no prompt, or a message of it is malformed.
    """
    prompt = fields.child(raw, "prompt")
    role = fields.text(prompt, "role")
    if role != "prompter":
        raise ValueError(f'"prompt" has the role "{role}", not "prompter"')
    if not _is_wanted(prompt, language):
        return []
    return prompt_record(
        from_user(fields.text(prompt, "text")),
        _best_reply(prompt, language),
        fields.source("oasst", raw, "message_tree_id"),
    )


def _is_wanted(message: Raw, language: str | None) -> bool:
    text = fields.text(message, "text")
    if message.get("deleted") is True or not text.strip():
        return False
    return language is None or fields.text(message, "lang") == language


def _best_reply(prompt: Raw, language: str | None) -> str | None:
    """The wanted answer of the lowest rank; 0 is the best. Without ranks there is none."""
    if prompt.get("replies") is None:
        return None
    ranked: list[tuple[int, str]] = []
    for reply in fields.children(prompt, "replies"):
        rank = reply.get("rank")
        if isinstance(rank, int) and _is_wanted(reply, language):
            ranked.append((rank, fields.text(reply, "text")))
    return min(ranked)[1] if ranked else None
