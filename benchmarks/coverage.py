"""How often do the product's 95 % intervals hold the truth?

    python -m benchmarks.coverage [--experiments 2000]

Simulated experiments of the sizes that the product uses, each with a truth of its own from
the range that occurs. Beside the intervals that are shown stands the percentile bootstrap,
which they replace. The unit tests hold the same intervals to 93 to 97 %. The last line is
one JSON object: the least and the largest coverage of what is shown, over all rows where
the data leave room for 95 (few ties, many judgements); the others can only cover more.
"""

import argparse
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.simulated_judges import Judges, Prompts, covered, judged
from rewardloop.method import intervals

JUDGES = {
    "without taste": Judges(taste=0.0),
    "likes length": Judges(taste=0.5, by_length=0.5, unparsed=0.01),
    "good": Judges(taste=1.5, unparsed=0.1),
    "likes brevity, unsure of form": Judges(taste=0.3, by_length=-0.5, unparsed=0.3),
}
NUM_RESAMPLES = 1_000
Row = tuple[str, int, float, float | None, bool]
"""What, size, coverage, that of the percentile bootstrap, and whether 95 is possible."""
console = Console(markup=False)


def over_seeds(num_experiments: int) -> Iterator[Row]:
    for num_seeds in (3, 5, 10):
        random = np.random.default_rng(num_seeds)
        gains = random.normal(0.7, 0.4, (num_experiments, num_seeds))
        shares = gains, np.ones_like(gains)
        coverage = covered(*intervals.student(gains), 0.7)
        yield "mean over seeds", num_seeds, coverage, _covered(_percentile(*shares), 0.7), True


def of_head_to_heads(num_experiments: int) -> Iterator[Row]:
    for num_prompts in (20, 64, 256):
        for low, high in ((0.0, 0.1), (0.1, 0.5), (0.5, 0.85), (0.85, 0.95), (0.95, 1.0)):
            random = np.random.default_rng(num_prompts)
            decided = 1 - random.uniform(low, high, num_experiments)
            wins = decided * random.random(num_experiments)
            rates = np.stack([wins, decided - wins, 1 - decided], axis=-1)
            drawn, truth = random.multinomial(num_prompts, rates), 2 * wins - decided
            found = covered(*intervals.paired(drawn[:, 0], drawn[:, 1], num_prompts), truth)
            again = random.multinomial(
                num_prompts, drawn / num_prompts, (NUM_RESAMPLES, len(drawn))
            )
            nets = (again[..., 0] - again[..., 1]) / num_prompts
            old = _covered(np.percentile(nets, [2.5, 97.5], axis=0), truth)
            what = f"net win rate, ties {low:.0%} to {high:.0%}"
            yield what, num_prompts, found, old, high <= 0.85


def of_judges(num_experiments: int) -> Iterator[Row]:
    for name, judges in JUDGES.items():
        random = np.random.default_rng(1)
        every = judged(random, num_experiments * 60, judges).shaped(num_experiments, 60)
        for num_prompts in (15, 18, 30, 60):
            found = every.first(num_prompts)
            for figure in ("pairwise_accuracy_ties_half", "exact_order", "parse_rate", "five_best"):
                if (row := _of_share(every, found, figure, num_prompts)) is not None:
                    yield f"{figure}, {name}", num_prompts, *row
            for figure, values in found.correlations.items():
                truth = every.correlations[figure].sum() / every.varies.sum()
                coverage = covered(*intervals.correlation(values, found.varies), truth)
                old = _covered(_percentile(values, found.varies), truth)
                yield f"{figure}, {name}", num_prompts, coverage, old, True


def _of_share(
    every: Prompts, found: Prompts, figure: str, num_prompts: int
) -> tuple[float, float, bool] | None:
    """None where hardly an experiment has enough prompts for an interval."""
    (all_parts, all_wholes), (parts, wholes) = every.shares[figure], found.shares[figure]
    truth = all_parts.sum() / all_wholes.sum()
    shown = (wholes > 0).sum(-1) >= intervals.MIN_PROMPTS
    if shown.sum() < len(shown) / 2:
        return None
    parts, wholes = parts[shown], wholes[shown]
    old = _covered(_percentile(parts, wholes), truth)
    if figure == "exact_order":
        ends = intervals.wilson(parts.sum(-1), wholes.sum(-1))
    else:
        ends = intervals.ratio((parts, wholes))
    return covered(*ends, truth), old, figure == "pairwise_accuracy_ties_half"


def _covered(ends: Any, truth: Any) -> float:
    low, high = ends
    return covered(low, high, truth)


def _percentile(parts: Any, wholes: Any) -> Any:
    """The percentile bootstrap over the last axis, with the same draws for all experiments."""
    num = parts.shape[-1]
    drawn = np.random.default_rng(0).multinomial(num, [1 / num] * num, NUM_RESAMPLES).T
    whole = wholes @ drawn
    shares = np.divide(parts @ drawn, whole, out=np.zeros(whole.shape), where=whole > 0)
    return np.percentile(shares, [2.5, 97.5], axis=-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=int, default=2000)
    num = parser.parse_args().experiments
    rows = [*over_seeds(num), *of_head_to_heads(num), *of_judges(num)]
    table = Table("interval of", "size", "covers, %", "percentile bootstrap, %", box=None)
    for what, size, coverage, old, can in rows:
        told = "-" if old is None else f"{100 * old:.1f}"
        table.add_row(what, str(size), f"{100 * coverage:.1f}{'' if can else ' *'}", told)
    console.print(table)
    console.print("* rare outcomes: more than 95 % is all that discrete counts allow")
    possible = [coverage for _, _, coverage, _, can in rows if can]
    least_of_all = min(coverage for _, _, coverage, _, _ in rows)
    last = {"least": min(possible), "largest": max(possible), "least_of_all": least_of_all}
    print(json.dumps({key: round(value, 4) for key, value in last.items()}))


if __name__ == "__main__":
    main()
