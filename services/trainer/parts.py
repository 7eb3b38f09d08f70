"""An optimizer step's batch in several forward passes, each of rows of like length.

The batch is what TRL draws and its gradient what TRL's would be in a single pass: which rows
share a pass, and how many passes there are, changes rounding alone.

Shapes: R rows of a batch (a pair's two sides are one row), S sequences (R, or 2R of pairs).
Knows nothing of losses.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from services.trainer.grouping import Limit, split

Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Batch:
    """What a collator made; tensors of sequences, and of rows where they have one dimension."""

    inputs: Inputs
    num_sides: int

    @property
    def num_rows(self) -> int:
        return len(self.inputs["input_ids"]) // self.num_sides

    @property
    def is_scored_ST(self) -> torch.Tensor:
        if "completion_mask" in self.inputs:
            return self.inputs["completion_mask"].bool()
        return self.inputs["labels"] != -100

    def lengths(self) -> list[int]:
        """Tokens of each row, a prompt that its sides share counted once."""
        answers_SR = self.is_scored_ST.sum(1).view(self.num_sides, -1)
        first_R = self.inputs["attention_mask"].sum(1).view(self.num_sides, -1)[0]
        return [int(n) for n in first_R + answers_SR[1:].sum(0)]

    def parts(self, limit: Limit) -> Iterator["Batch"]:
        for rows in split(self.lengths(), limit):
            yield self._part(torch.tensor(rows))

    def _part(self, rows: torch.Tensor) -> "Batch":
        sequences = torch.cat([rows + side * self.num_rows for side in range(self.num_sides)])
        width = int(self.inputs["attention_mask"][sequences].sum(1).max())
        part = {
            name: values[rows] if values.dim() == 1 else values[sequences, :width]
            for name, values in self.inputs.items()
        }
        return Batch(part, self.num_sides)

    def num_answer_tokens(self, side: int | None = None) -> int:
        """Of one side, or of all."""
        is_scored = self.is_scored_ST
        return int((is_scored if side is None else is_scored.chunk(self.num_sides)[side]).sum())


ANSWERS_OF = {"mean_token_accuracy": 0, "logits/chosen": 0, "logits/rejected": 1, "entropy": None}
"""TRL's metrics that are means over tokens of answers, by side; the others are over rows."""


def weight(name: str, part: Batch) -> int:
    """How much a part counts in the mean that is logged under the name."""
    return part.num_answer_tokens(ANSWERS_OF[name]) if name in ANSWERS_OF else part.num_rows


class InParts:
    """To be put before TRL's trainer among the bases of a class."""

    limit = Limit()
    num_sides = 1
    _metrics: dict[str, Any]
    """TRL's: of each mode, a list by name, whose mean is logged."""

    def training_step(
        self, model: Any, inputs: Inputs, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """The whole batch's loss, and its gradient, part by part."""
        batch = Batch(inputs, self.num_sides)
        if num_items_in_batch is None:  # of a model whose forward takes no such argument
            num_items_in_batch = batch.num_answer_tokens()
        metrics = self._metrics["train"]
        losses, logged, parts = [], [], list(batch.parts(self.limit))
        for part in parts:
            self._metrics["train"] = defaultdict(list)
            with self._as_part(part, batch):
                step = super().training_step  # type: ignore[misc]
                losses.append(step(model, part.inputs, num_items_in_batch))
            logged.append(self._metrics["train"])
        self._metrics["train"] = metrics
        for name in logged[0]:
            metrics[name].append(_mean(name, logged, parts))
        return torch.stack(losses).sum()

    def _as_part(self, part: Batch, batch: Batch) -> AbstractContextManager[None]:
        """While it is open, the loss is the part's share of the whole batch's loss."""
        return nullcontext()


def _mean(name: str, logged: list[dict[str, list[float]]], parts: list[Batch]) -> float:
    """What one pass over all parts would have logged."""
    values = [found[name][-1] for found in logged]
    if name == "num_tokens":  # a count so far
        return values[-1]
    weights = [weight(name, part) for part in parts]
    return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)
