"""Reads what an OpenAI-compatible server answered; the server need not be ours."""

import itertools
from collections.abc import Sequence
from typing import Any

from rewardloop.errors import UnreadableAnswer


def choices_of(answer: Any, count: int, server: object) -> list[dict[str, Any]]:
    """The `count` choices of an answer, by their index.

    Raises:
        UnreadableAnswer: `server` gave more or fewer, or something else than a completion.
    """
    try:
        given = enumerate(answer["choices"])
        choices = [c for _, c in sorted(given, key=lambda item: index_of(item[1], item[0]))]
        for choice in choices:
            text_of(choice)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UnreadableAnswer(
            f"{server} answered with something else than a completion ({error!r}); is there an "
            "OpenAI-compatible server at this address?"
        ) from error
    if len(choices) != count:
        raise UnreadableAnswer(
            f"{server} was asked for n={count} choices and gave {len(choices)}; use a server that "
            "gives n choices, or ask for one (of judgements: judging.num_judgements)"
        )
    return choices


def index_of(choice: dict[str, Any], position: int) -> int:
    """A choice's number; some servers leave it out, or write it as a text."""
    index = str(choice.get("index"))
    return int(index) if index.isdecimal() else position


def text_of(choice: dict[str, Any]) -> str:
    """What was written, by either route; null is nothing, and parts are joined by newlines."""
    found = choice["message"]["content"] if "message" in choice else choice["text"]
    return written_text(found)


def written_text(content: Any) -> str:
    """The text of a content that may be null or, with some servers, a list of text parts."""
    if isinstance(content, list):
        texts = [part.get("text") if isinstance(part, dict) else part for part in content]
        return "\n".join(str(text) for text in texts if text)
    return str(content or "")


def usage_of(answer: dict[str, Any]) -> tuple[int, int]:
    """Prompt tokens and completion tokens; 0 where the server does not count them."""
    usage = answer.get("usage") or {}
    return int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)


def share_out(total: int, weights: Sequence[int]) -> list[int]:
    """Split `total` into whole parts in proportion to `weights`; the parts sum to `total`."""
    assert weights, "there is nobody to share with"
    whole = sum(weights) or len(weights)
    shares = weights if sum(weights) else [1] * len(weights)
    bounds = [total * sum(shares[:end]) // whole for end in range(len(shares) + 1)]
    return [high - low for low, high in itertools.pairwise(bounds)]
