"""Training rows: token ids that are made here, so that no template alters what was sampled.

A prompt's ids are what the engine is given of it. An answer's are its text's, and behind them
the end of a turn; an answer that `sampling.max_tokens` cut has no end, since the model wrote
none. `max_length` cuts rows from the right.

Invariants: a row that teaches nothing or something false is left out; whatever is left out,
cut or changed is counted in the `Ledger`. Knows neither TRL nor torch.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from rewardloop.chat_tokens import (
    TemplateRefused,
    answer_ids,
    end_of_turn_ids,
    forged,
    prompt_ids,
    text_ids,
)

Row = dict[str, Any]


class NothingToTrainOn(ValueError):
    """No row is left; the message says why, and what mends it."""


class LeftOut(Exception):
    """The row is not trained on; the message is the reason."""


@dataclass(slots=True)
class Ledger:
    """What became of a task's rows."""

    num_rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """By reason."""
    counts: Counter[str] = field(default_factory=Counter)
    """Of what was changed or cut, by the name under which it is told."""

    @property
    def num_left_out(self) -> int:
        return self.left_out.total()

    def told(self) -> dict[str, Any]:
        """For the iteration's report; empty where there is nothing to say."""
        told: dict[str, Any] = dict(self.counts)
        if self.left_out:
            told["num_trained"] = self.num_rows - self.num_left_out
            told["num_dropped"] = self.num_left_out
            told["why"] = self._reasons()
        return told

    def nothing_left(self) -> str:
        which = f"in all {self.num_rows}" if len(self.left_out) == 1 else f"of {self.num_rows}"
        return (
            f"nothing is left to train on: {which} rows {self._reasons()}; "
            "raise max_length or take shorter prompts"
        )

    def _reasons(self) -> str:
        if len(self.left_out) == 1:
            return next(iter(self.left_out))
        return "; ".join(f"in {num} {reason}" for reason, num in self.left_out.most_common())


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes the rows of one training."""

    tokenizer: Any
    max_length: int
    end: list[int]
    ledger: Ledger

    def pairs(self, pairs: list[Row]) -> list[Row]:
        """Rows as TRL's DPO keeps them: `prompt_ids`, `chosen_ids`, `rejected_ids`."""
        return list(self._kept(pairs, self._pair))

    def examples(self, examples: list[Row]) -> list[Row]:
        """Rows as TRL's SFT keeps them: `input_ids`, and `labels` with -100 for the prompt."""
        return list(self._kept(examples, self._example))

    def _kept(self, given: list[Row], make: Callable[[Row], Row]) -> Iterator[Row]:
        for one in given:
            self.ledger.num_rows += 1
            try:
                made = make(one)
            except LeftOut as reason:
                self.ledger.left_out[str(reason)] += 1
            else:
                yield made

    def _pair(self, pair: Row) -> Row:
        prompt = self._prompt(pair["prompt"])
        sides = [self._answer(pair, side) for side in ("chosen", "rejected")]
        fitting = [ids[: self.max_length - len(prompt)] for ids in sides]
        if not all(fitting):
            raise LeftOut("a side has no token")
        if fitting[0] == fitting[1]:
            cut = "" if sides == fitting else f" at max_length, {self.max_length} tokens"
            raise LeftOut(f"the two sides are the same tokens{cut}")
        for side, whole, kept in zip(("chosen", "rejected"), sides, fitting, strict=True):
            self._count_answer(side, _text(pair[side]), whole, kept, _is_cut(pair, side))
        self._count_spelled(pair["prompt"], _text(pair["chosen"]), _text(pair["rejected"]))
        return {"prompt_ids": prompt, "chosen_ids": fitting[0], "rejected_ids": fitting[1]}

    def _example(self, example: Row) -> Row:
        prompt = self._prompt(example["prompt"])
        whole = self._answer(example, "completion")
        kept = whole[: self.max_length - len(prompt)]
        kind = example.get("kind", "completion")
        if not kept:
            raise LeftOut("the answer has no token")
        if kind == "eft" and kept != whole:
            raise LeftOut(
                f"the judgement would lose its score at max_length, {self.max_length} tokens"
            )
        text = _text(example["completion"])
        self._count_answer(kind, text, whole, kept, bool(example.get("is_cut")))
        self._count_spelled(example["prompt"], text)
        return {"input_ids": prompt + kept, "labels": [-100] * len(prompt) + kept}

    def _prompt(self, messages: list[dict[str, Any]]) -> list[int]:
        try:
            ids = prompt_ids(self.tokenizer, messages)
        except TemplateRefused as error:
            raise LeftOut(str(error)) from error
        if len(ids) >= self.max_length:
            raise LeftOut(f"the prompt alone fills max_length, {self.max_length} tokens")
        return ids

    def _answer(self, row: Row, side: str) -> list[int]:
        """Ids of an answer and of its end. What people wrote holds no sampled marks."""
        encode = text_ids if row.get("kind") == "ift" else answer_ids
        ids = encode(self.tokenizer, _text(row[side]))
        return ids if _is_cut(row, side) else ids + self.end

    def _count_answer(
        self, name: str, text: str, whole: list[int], kept: list[int], is_cut: bool
    ) -> None:
        found = {
            f"num_{name}_cut_by_max_length": kept != whole,
            f"num_{name}_without_end": is_cut,
            f"num_{name}_not_restored_by_tokenizer": not self._restores(
                text, whole if is_cut else whole[: len(whole) - len(self.end)]
            ),
        }
        self.ledger.counts.update(key for key, holds in found.items() if holds)

    def _restores(self, text: str, ids: list[int]) -> bool:
        """The ids of a text give the same text."""
        head = text_ids(self.tokenizer, "x")  # a tokenizer may take a text's first blank away
        written = self.tokenizer.decode(head + ids, clean_up_tokenization_spaces=False)
        return bool(written == self.tokenizer.decode(head) + text)

    def _count_spelled(self, prompt: list[dict[str, Any]], *answers: str) -> None:
        asked = any(forged(self.tokenizer, str(message["content"])) for message in prompt)
        if asked or any(forged(self.tokenizer, text, is_answer=True) for text in answers):
            self.ledger.counts["num_rows_that_spell_control_tokens"] += 1


def maker(tokenizer: Any, max_length: int, stop_ids: set[int], ledger: Ledger) -> Maker:
    """`stop_ids` are those of the engine that the trained model will be loaded into."""
    end = end_of_turn_ids(tokenizer, sorted(stop_ids))
    return Maker(tokenizer, max_length, end, ledger)


def _is_cut(row: Row, side: str) -> bool:
    """`sampling.max_tokens` cut the answer."""
    return bool(row.get("is_cut" if side == "completion" else f"{side}_is_cut"))


def _text(answer: Any) -> str:
    """An answer's text; TRL's preference format has it as the one message of a list."""
    if isinstance(answer, str):
        return answer
    (message,) = answer
    return str(message["content"])
