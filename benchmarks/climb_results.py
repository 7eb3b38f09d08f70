"""What the climb benchmark has measured so far, in one file, and what it says on the whole."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from statistics import fmean
from typing import Any, Self

from rich.console import Console
from rich.table import Table

from rewardloop.datasets.writer import write_text
from rewardloop.method.agreement import rank_correlation
from rewardloop.method.intervals import student

WORDS = "words"
"""Beside the rules: how many words an answer has."""


class Arm(StrEnum):
    """A judge's taste."""

    BREVITY = "brevity"
    CONTROL = "control"
    BLIND = "blind"

    @property
    def rule(self) -> str:
        """The rule that scores the arm's answers: the control is held to what it reverses."""
        return "blind" if self is Arm.BLIND else "brevity"


@dataclass
class Results:
    """Kept in `path`, which is written at every step; a run is named `arm-seed`."""

    path: Path
    num_prompts: int
    num_held_out: int
    config: dict[str, Any] = field(default_factory=dict)
    """What all runs have in common."""
    runs: dict[str, str] = field(default_factory=dict)
    """Ids of the runs that have begun."""
    pairs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Of the runs that ended: `prompt` (its text) and `margin` of each pair."""
    scores: dict[str, dict[str, list[list[float]]]] = field(default_factory=dict)
    """Of M1 (`m1-seed`) and of each run's M3, by rule and as `WORDS`: each held-out prompt's
    answers."""

    @classmethod
    def of(
        cls, path: Path, num_prompts: int, num_held_out: int, config: dict[str, Any] | None = None
    ) -> Self:
        """What the file holds, or an empty one.

        Raises:
            ValueError: the file is of other sizes, or of another config.
        """
        config = config or {}
        if not path.exists():
            return cls(path, num_prompts, num_held_out, config)
        found = cls(path, **json.loads(path.read_text()))
        if (found.num_prompts, found.num_held_out) != (num_prompts, num_held_out):
            raise ValueError(
                f"{path} was measured with --prompts {found.num_prompts} --held-out "
                f"{found.num_held_out}: give the same, or another --home"
            )
        if found.config != config:
            raise ValueError(
                f"{path} was measured with another config (learning rate, sampling, ...) than "
                "benchmarks.climb has now, and figures of both do not belong together: give "
                "another --home"
            )
        return found

    def save_run(self, name: str, run_id: str) -> None:
        self.runs[name] = run_id
        self._write()

    def forget_run(self, name: str) -> None:
        """It failed: the next call begins another."""
        del self.runs[name]
        self._write()

    def save_pairs(self, name: str, pairs: Sequence[dict[str, Any]]) -> None:
        self.pairs[name] = [
            {
                "prompt": pair["prompt"][-1]["content"],
                "margin": pair["chosen_score"] - pair["rejected_score"],
            }
            for pair in pairs
        ]
        self._write()

    def save_scores(self, name: str, scores: dict[str, list[list[float]]]) -> None:
        self.scores[name] = scores
        self._write()

    def margins(self, name: str) -> dict[str, float]:
        """Of the run's pairs, by prompt."""
        return {pair["prompt"]: pair["margin"] for pair in self.pairs[name]}

    def gain(self, arm: Arm, seed: int) -> float:
        """M3's mean score less M1's, by the arm's rule."""
        after, before = (
            fmean(score for each in self.scores[name][arm.rule] for score in each)
            for name in (f"{arm}-{seed}", f"m1-{seed}")
        )
        return after - before

    def mean_words(self, name: str) -> float:
        return fmean(num for each in self.scores[name][WORDS] for num in each)

    def rho_with_words(self, rule: str) -> float | None:
        """Spearman's rho between the rule's score of M1's answers and their words, within
        prompts, mean over them and over all samplings of M1."""
        firsts = [scores for name, scores in self.scores.items() if name.startswith("m1-")]
        pairs = [both for one in firsts for both in zip(one[rule], one[WORDS], strict=True)]
        known = [rho for a, b in pairs if (rho := rank_correlation(a, b)) is not None]
        return fmean(known) if known else None

    def _write(self) -> None:
        kept = {key: value for key, value in asdict(self).items() if key != "path"}
        write_text(json.dumps(kept, indent=1) + "\n", self.path)


def summary(results: Results, plan: Sequence[tuple[Arm, int]], console: Console) -> dict[str, Any]:
    """Show each arm's gain, and return the last line."""
    gains = {arm: [results.gain(a, seed) for a, seed in plan if a is arm] for arm in Arm}
    ends = {arm: over_seeds(values) for arm, values in gains.items()}
    table = Table("arm", "gain", "95 % over seeds", "each seed", box=None)
    for arm, values in gains.items():
        if values:
            low, high = ends[arm]
            told = "-" if low is None else f"{low:+.2f} to {high:+.2f}"
            table.add_row(arm, f"{fmean(values):+.2f}", told, " ".join(f"{v:+.2f}" for v in values))
    console.print(table)
    rho = results.rho_with_words(Arm.BLIND.rule)
    if rho is not None:
        console.print(f"blind rule and words of M1's answers: rank correlation {rho:+.2f}")
    return {
        "gain": _mean(gains[Arm.BREVITY]),
        "gain_low": ends[Arm.BREVITY][0],
        "control": _mean(gains[Arm.CONTROL]),
        "control_low": ends[Arm.CONTROL][0],
        "control_high": ends[Arm.CONTROL][1],
        "gain_blind_to_length": _mean(gains[Arm.BLIND]),
        "seeds": len(gains[Arm.BREVITY]),
    }


def over_seeds(gains: Sequence[float]) -> tuple[float, float] | tuple[None, None]:
    """The mean's 95 % interval by Student's t; none of a single seed."""
    if len(gains) < 2:
        return None, None
    low, high = student(gains)
    return round(float(low), 3), round(float(high), 3)


def _mean(values: Sequence[float]) -> float | None:
    return round(fmean(values), 3) if values else None
