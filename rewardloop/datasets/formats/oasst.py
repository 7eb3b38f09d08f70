"""Open Assistant (OASST1, OASST2): trees, and flat files of messages.

The first user's turn is the prompt and the assistant's direct replies to it are
the answers; deeper turns are not read. What reviewers rejected, what is deleted,
or spam, and trees that were not finished are left out by name. A reply that a model
wrote (`synthetic`) is read: people ranked it among the others.
"""

from collections.abc import Iterable, Mapping
from typing import cast

from rewardloop.datasets import fields, labels
from rewardloop.datasets.fields import Raw
from rewardloop.datasets.form import Candidate, Conversation, Ranked
from rewardloop.datasets.formats import asked
from rewardloop.datasets.formats.shape import RowFormat, conversation
from rewardloop.datasets.reasons import Reason, RowLeftOut
from rewardloop.datasets.row import Row, is_filled

MESSAGE_COLUMNS = frozenset(
    {"message_id", "parent_id", "message_tree_id", "tree_state", "text", "role", "lang", "rank"}
    | {"deleted", "synthetic", "review_result", "labels"}
)
"""What is read of a flat file's messages."""

_READY = "ready_for_export"


def _tree(row: Row) -> list[Conversation]:
    state = row.value("tree_state")
    if state is not None and state != _READY:
        raise RowLeftOut(Reason.TREE_NOT_READY, f'the tree\'s state is "{state}"')
    root = fields.child(row, "prompt")
    role = fields.text(root, "role")
    if role != "prompter":
        raise ValueError(f'"prompt" has the role "{role}", not "prompter"')
    if why := _unwanted(root, row.language):
        raise RowLeftOut(_of_prompt(why), "the tree's prompt is not wanted")
    replies = [] if root.get("replies") is None else fields.children(root, "replies")
    candidates = _replies(row, replies)
    later = sum(len(r) for reply in replies if isinstance(r := reply.get("replies"), list))
    messages = asked.user(fields.text(root, "text"))
    return conversation(row, "oasst", messages, candidates, num_later_turns=later)


def _of_prompt(why: Reason) -> Reason:
    known = {
        Reason.DELETED: Reason.PROMPT_DELETED,
        Reason.EMPTY: Reason.PROMPT_EMPTY,
        Reason.OTHER_LANGUAGE: Reason.PROMPT_OTHER_LANGUAGE,
    }
    return known.get(why, why)


def _replies(row: Row, replies: Iterable[Raw]) -> list[Candidate]:
    candidates = []
    for number, reply in enumerate(replies, start=1):
        value = reply.get("rank")
        rank = labels.rank(value, f"reply {number}") if is_filled(value) else None
        why = _unwanted(reply, row.language)
        if why is None and reply.get("role", "assistant") != "assistant":
            why = Reason.NOT_AN_ANSWER
        if why is None and rank is None:
            why = Reason.UNRANKED
        if why is not None:
            row.leave_out(why)
        else:
            assert rank is not None
            candidates.append(Candidate(fields.text(reply, "text"), Ranked(rank)))
    return candidates


def _unwanted(message: Raw, language: str | None) -> Reason | None:
    if _is_true(message.get("deleted")):
        return Reason.DELETED
    review = message.get("review_result")
    if is_filled(review) and not labels.is_liked(review, "review_result"):
        return Reason.REJECTED_BY_REVIEWERS
    if _is_spam(message.get("labels")):
        return Reason.SPAM
    text = fields.text(message, "text")
    if not text.strip():
        return Reason.EMPTY
    if language is not None and fields.text(message, "lang") != language:
        return Reason.OTHER_LANGUAGE
    return None


def _is_true(value: object) -> bool:
    return is_filled(value) and str(value).strip().lower() in ("true", "1", "1.0", "yes")


def _is_spam(given: object) -> bool:
    """Trees have `{"spam": {"value", "count"}}`, flat files lists of names and values."""
    if not isinstance(given, dict):
        return False
    spam: object = given.get("spam")
    if isinstance(spam, dict):
        spam = spam.get("value")
    names, values = given.get("name"), given.get("value")
    if isinstance(names, list) and isinstance(values, list) and "spam" in names:
        spam = values[names.index("spam")] if names.index("spam") < len(values) else None
    return isinstance(spam, int | float) and spam >= 1


def is_tree(filled: frozenset[str], row: Row) -> bool:
    """A message's own text may stand in a flat file beside `message_tree_id`."""
    return {"prompt", "message_tree_id"} <= filled or (
        isinstance(row.peek("prompt"), dict)
        and ("replies" in cast(Mapping[str, object], row.peek("prompt")))
    )


def is_message(filled: frozenset[str], _: Row) -> bool:
    """Whether a row is one message of a flat file."""
    return {"message_id", "role"} <= filled and "prompt" not in filled


def _not_alone(row: Row) -> list[Conversation]:
    raise AssertionError("messages are read by their trees")


def without_own_marks(message: Row) -> Row:
    """The columns that are not read with the message's tree."""
    others = {key: message.peek(key) for key in message if key not in MESSAGE_COLUMNS}
    return Row(others, message.line, message.language)


def orphans(messages: Iterable[Row]) -> list[Row]:
    """The messages whose parent is not in the file."""
    held = list(messages)
    known = {message["message_id"] for message in held}
    parents = ((message, message.value("parent_id")) for message in held)
    return [message for message, parent in parents if parent is not None and parent not in known]


def trees(messages: Iterable[Row]) -> list[Row]:
    """The messages as rows of trees, one for each prompt; the row is that of the prompt.

    Only a prompt and its direct replies are put together.
    """
    roots: dict[object, Row] = {}
    replies: dict[object, list[Raw]] = {}
    for message in messages:
        parent = message.value("parent_id")
        if parent is None:
            roots[message["message_id"]] = message
        else:
            replies.setdefault(parent, []).append(dict(message))
    return [_as_tree(root, replies.get(key, [])) for key, root in roots.items()]


def _as_tree(root: Row, replies: list[Raw]) -> Row:
    tree = {
        "message_tree_id": root.value("message_tree_id") or root["message_id"],
        "tree_state": root.value("tree_state"),
        "prompt": {**root, "replies": replies},
    }
    return Row(tree, root.line, root.language)


TREE = RowFormat("oasst", is_tree, _tree)
MESSAGE = RowFormat("oasst", is_message, _not_alone)
FORMATS: tuple[RowFormat, ...] = (TREE, MESSAGE)
