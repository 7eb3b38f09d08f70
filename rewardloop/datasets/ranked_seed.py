"""Rewardloop's own ranked format: `{"id", "category", "prompt", "responses": [{"rank", "text"}]}`.

Only `prompt` and `responses` have to be there. Rank 0 is the best. The category
is for people who read the file.
"""

from rewardloop.datasets import fields
from rewardloop.datasets.fields import Raw
from rewardloop.datasets.sifting import Sifted, sift
from rewardloop.records import PromptRecord


def record(raw: Raw) -> list[PromptRecord]:
    """The line's prompt with its best response, or nothing where the prompt is left out.

    Raises:
        ValueError: prompt or responses are missing or malformed.
    """
    prompt = sifted(raw).prompt
    return [prompt] if prompt else []


def sifted(raw: Raw) -> Sifted:
    """The prompt and all its responses.

    Raises:
        ValueError: prompt or responses are missing or malformed.
    """
    return sift(
        {"text": fields.text(raw, "prompt")},
        fields.children(raw, "responses"),
        fields.source("ranked", raw, "id"),
        language=None,
    )
