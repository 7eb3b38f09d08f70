"""What `inspect` and an import tell of a file: its account, and how it stands to what is stored.

Owns the shape of that report, the same on the command line and over REST. Pure: lengths and
overlap are measured by whoever has the tokenizer and the store, and handed in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewardloop.config import RunConfig
from rewardloop.datasets.formats.table import Format
from rewardloop.datasets.ranked import RankedResult, read_ranked
from rewardloop.datasets.reader import ReadResult, read_prompts
from rewardloop.records import Message, PromptRecord

_PERCENTILES = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class Item:
    """A prompt and the answers that were read with it."""

    messages: Sequence[Message]
    answers: Sequence[str]


@dataclass(frozen=True, slots=True)
class Inspected:
    """One file as either import would read it."""

    prompts: ReadResult
    ranked: RankedResult | None
    """None where no prompt has two answers in order."""

    @property
    def items(self) -> list[Item]:
        """What is measured: each prompt once, with its reference and its ranked answers."""
        rankings = () if self.ranked is None else self.ranked.prompts
        ranked = {_key(r.prompt): [answer.text for answer in r.responses] for r in rankings}
        return [
            Item(p.messages, list(dict.fromkeys([*_own(p), *ranked.get(_key(p), ())])))
            for p in self.prompts.prompts
        ]


def _own(prompt: PromptRecord) -> list[str]:
    return [] if prompt.reference is None else [prompt.reference]


def _key(prompt: PromptRecord) -> tuple[tuple[str, str], ...]:
    return tuple((message["role"], message["content"]) for message in prompt.messages)


def inspect(
    path: Path, format: Format = Format.AUTO, *, strict: bool = False, language: str | None = "en"
) -> Inspected:
    """Read a file as `import` and as `import-ranked` do.

    Raises:
        BrokenFile, InvalidInput: as `read_prompts`.
    """
    prompts = read_prompts(path, format, strict=strict, language=language)
    if not prompts.account.num_ranked:
        return Inspected(prompts, None)
    return Inspected(prompts, read_ranked(path, format, strict=strict, language=language))


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


def report(found: Inspected, dataset: str, measured: Measured) -> dict[str, Any]:
    """The whole inspection as plain data."""
    prompt_lengths = [length for length, _ in measured.lengths]
    answer_lengths = [length for _, answers in measured.lengths for length in answers]
    ranked = found.ranked
    return {
        "account": found.prompts.account.as_json(),
        "ranked": None if ranked is None else _ranked(ranked),
        "stored": stored(dataset, measured),
        "lengths": {
            "unit": measured.unit,
            "version": measured.version,
            "prompt": percentiles(prompt_lengths),
            "answer": percentiles(answer_lengths),
        },
        "limits": _limits(measured) if measured.unit == "tokens" else None,
    }


def _ranked(read: RankedResult) -> dict[str, Any]:
    """What `import-ranked` would take, and what it would leave out."""
    return {
        "num_prompts": len(read.prompts),
        "num_responses": sum(len(prompt.responses) for prompt in read.prompts),
        "left_out": read.account.as_json()["left_out"],
    }


def stored(dataset: str, measured: Measured) -> dict[str, Any] | None:
    """How the prompts stand to what is stored; None where no stack was asked."""
    if measured.known is None:
        return None
    return {
        "dataset": dataset,
        "known": measured.known,
        "elsewhere": measured.elsewhere,
        "held_out": measured.held_out,
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
