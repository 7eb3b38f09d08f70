"""What `inspect` and an import tell of a file: its account, and how it stands to what is stored.

Owns the shape of that report, the same on the command line and over REST. Pure: lengths and
overlap are measured by whoever has the tokenizer and the store, and handed in.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rewardloop.config import RunConfig
from rewardloop.records import Message, PromptRecord, RankedPrompt

_PERCENTILES = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class Item:
    """A prompt and the answers that were read with it."""

    messages: Sequence[Message]
    answers: Sequence[str]


def items(prompts: Iterable[PromptRecord], ranked: Iterable[RankedPrompt]) -> list[Item]:
    """What is measured: each prompt once, with its reference and its ranked answers."""
    answers: dict[str, list[str]] = {}
    found: dict[str, Sequence[Message]] = {}
    for prompt, texts in [
        *((p, [] if p.reference is None else [p.reference]) for p in prompts),
        *((r.prompt, [response.text for response in r.responses]) for r in ranked),
    ]:
        key = repr(prompt.messages)
        found.setdefault(key, prompt.messages)
        known = answers.setdefault(key, [])
        known.extend(text for text in texts if text not in known)
    return [Item(messages, answers[key]) for key, messages in found.items()]


@dataclass(frozen=True, slots=True)
class Measured:
    """What the store and the tokenizer say of a file's prompts."""

    unit: str
    """`tokens` or `characters`."""
    version: str | None
    """The model version whose tokens are counted."""
    context: int | None
    """Tokens that the engine's context holds, if it is known."""
    lengths: Sequence[tuple[int, Sequence[int]]]
    """Of each prompt, and of each of its answers."""
    known: int | None
    """Prompts that the dataset holds already; None where no stack was asked."""
    elsewhere: dict[str, int]
    """Prompts whose question stands in another dataset, by its name."""
    held_out: int
    """Prompts whose question some run holds out."""


def in_characters(found: Sequence[Item]) -> Measured:
    """What can be said without a stack."""
    lengths = [
        (sum(len(m["content"]) for m in item.messages), [len(text) for text in item.answers])
        for item in found
    ]
    return Measured("characters", None, None, lengths, None, {}, 0)


def report(
    account: dict[str, Any], dataset: str, measured: Measured, *, num_responses: int
) -> dict[str, Any]:
    """The whole inspection as plain data."""
    prompt_lengths = [length for length, _ in measured.lengths]
    answer_lengths = [length for _, answers in measured.lengths for length in answers]
    return {
        "account": account,
        "num_ranked_responses": num_responses,
        "dataset": dataset,
        "known": measured.known,
        "elsewhere": measured.elsewhere,
        "held_out": measured.held_out,
        "lengths": {
            "unit": measured.unit,
            "version": measured.version,
            "prompt": percentiles(prompt_lengths),
            "answer": percentiles(answer_lengths),
        },
        "limits": _limits(measured) if measured.unit == "tokens" else None,
    }


def _limits(measured: Measured) -> dict[str, Any]:
    """How many are too long for a run's defaults; a template's own tokens come on top."""
    defaults = RunConfig()
    max_tokens, max_length = defaults.sampling.max_tokens, defaults.training.max_length
    room = None if measured.context is None else measured.context - max_tokens
    pairs = [(prompt, answer) for prompt, answers in measured.lengths for answer in answers]
    return {
        "context": measured.context,
        "max_tokens": max_tokens,
        "prompts_over_context": (
            None if room is None else sum(length > room for length, _ in measured.lengths)
        ),
        "max_length": max_length,
        "answers_over_max_length": sum(sum(pair) > max_length for pair in pairs),
    }


def percentiles(lengths: Sequence[int]) -> dict[str, int] | None:
    """The nearest rank at 50, 90 and 99 in the hundred, and the longest; None of nothing."""
    if not lengths:
        return None
    ordered = sorted(lengths)
    found = {
        f"p{percent}": ordered[max(0, -(-percent * len(ordered) // 100) - 1)]
        for percent in _PERCENTILES
    }
    return {"num": len(ordered), **found, "max": ordered[-1]}
