"""Which charts a run has. Pure.

Each chart carries a caption, which the page sets beside it and a screen reader reads with
its figures. What has no data has no chart: the page says why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from rewardloop.records import Purpose
from rewardloop.report import charts, paper
from rewardloop.report.reading import Tree, dig, improving, name, version_after
from rewardloop.report.wording import finite, number, plain


@dataclass(frozen=True, slots=True)
class Figure:
    caption: str
    svg: Markup
    detail: str = ""
    """A second line of the caption."""


_CURVES = {
    "loss": "loss, nats",
    "rewards/margins": "reward margin",
    "rewards/accuracies": "reward accuracy",
    "mean_token_accuracy": "token accuracy",
    "validation_win_rate": "validation win rate",
}
"""Keys of a training's metrics that have a chart."""
NOT_FINITE = ("nan", "inf", "-inf")
"""How the database holds a metric that JSON has no number for."""

_TRENDS = {
    "pairwise_accuracy": ("Pairwise accuracy, %", 100, ()),
    "spearman": ("Spearman's rho", 1, ()),
    "parse_rate": ("Judgements with a score, %", 100, (0, 100)),
}
"""Keys of an assessment's metrics: what they are, what they are multiplied by, and what
their axis shows in any case."""


def win_rates(data: Tree) -> Figure | None:
    found = [_win_bar(e) for e in data["evaluations"]]
    rows = [row for row in found if row is not None]
    if not rows:
        return None
    told = "; ".join(f"{row.label}: {row.won:.1%} won, {row.tied:.1%} tied" for row in rows)
    caption = "Won, tied, lost; the whisker is the 95 % interval of what was won"
    return Figure(caption, charts.win_bars(f"Win rates. {told}", rows))


def _win_bar(evaluation: Tree) -> charts.WinBar | None:
    result = evaluation.get("result")
    won, tied = finite(dig(result, "win_rate")), finite(dig(result, "tie_rate"))
    if won is None or tied is None:
        return None
    low, high = finite(dig(result, "win_low")), finite(dig(result, "win_high"))
    label = f"{plain(evaluation.get('a'))} against {plain(evaluation.get('b'))}"
    return charts.WinBar(label, won, tied, low, high)


def agreement(data: Tree) -> list[Figure]:
    """A small chart a mode and measure, over the versions, beside the paper's."""
    health = [a for a in data["assessments"] if a.get("purpose") == Purpose.HEALTH]
    modes = dict.fromkeys(str(plain(a.get("mode"))) for a in health)
    found = [_trend(health, mode, key) for mode in modes for key in _TRENDS]
    return [figure for figure in found if figure is not None]


def _trend(health: Sequence[Tree], mode: str, key: str) -> Figure | None:
    what, factor, shown = _TRENDS[key]
    of_mode = {
        str(plain(a.get("label"))): a.get("metrics") for a in health if plain(a.get("mode")) == mode
    }
    ours = tuple(finite(dig(metrics, key)) for metrics in of_mode.values())
    if all(value is None for value in ours):
        return None
    theirs = tuple(dig(paper.JUDGES, label, key) for label in of_mode)
    series = [
        charts.Series(who, tuple(None if v is None else factor * v for v in values), is_paper)
        for who, values, is_paper in (("this run", ours, False), ("paper", theirs, True))
    ]
    told = [
        f"{one.name}: "
        + ", ".join(f"{x} {number(v)}" for x, v in zip(of_mode, one.values, strict=True))
        for one in series
    ]
    caption = f"{what}, {mode} judging"
    return Figure(
        caption, charts.trend(f"{caption}. {'; '.join(told)}", list(of_mode), series, shown)
    )


def scores(data: Tree) -> list[Figure]:
    """Every judgement's score, iteration by iteration, with those that carry none."""
    return [
        figure for iteration in improving(data) if (figure := _score_columns(iteration)) is not None
    ]


def _score_columns(iteration: Tree) -> Figure | None:
    unscored = dig(iteration, "scores", "unscored") or {}
    num_unscored = sum(int(finite(num) or 0) for num in unscored.values())
    hollow = charts.Column("no score", num_unscored, is_hollow=True)
    caption = f"{name(iteration)}: scores of its judgements"
    return histogram(caption, dig(iteration, "scores", "scores"), hollow)


def histogram(
    caption: str, counts: Mapping[str, Any] | None, *others: charts.Column
) -> Figure | None:
    """Counts by whole points; None where nothing was counted."""
    bars = [charts.Column(str(k), int(finite(num) or 0)) for k, num in (counts or {}).items()]
    bars += others
    if not any(bar.num for bar in bars):
        return None
    told = ", ".join(f"{bar.label}: {bar.num}" for bar in bars)
    return Figure(caption, charts.columns(f"{caption}. {told}", bars))


def thinning(iteration: Tree) -> list[Figure]:
    """EFT examples by score, before and after the most frequent score was thinned out."""
    eft = dig(iteration, "report", "eft")
    both = (
        histogram("Scores in agreement, before thinning", dig(eft, "scores_before")),
        histogram("The same, after thinning", dig(eft, "scores_after")),
    )
    return [figure for figure in both if figure is not None]


def lengths(data: Tree) -> Figure | None:
    rows = []
    for iteration in improving(data):
        found = [finite(dig(iteration, "lengths", k)) for k in ("p10", "p50", "p90", "mean")]
        known = [value for value in found if value is not None]
        if len(known) == len(found):
            rows.append(charts.Span(f"Iteration {plain(iteration.get('index'))}", *known))
    if not rows:
        return None
    told = "; ".join(f"{r.label}: {r.low:.0f} to {r.high:.0f}, median {r.middle:.0f}" for r in rows)
    caption = "Characters of a response: 10th to 90th percentile, median (bar), mean (dot)"
    return Figure(caption, charts.spans(f"{caption}. {told}", rows))


def training(iteration: Tree) -> list[list[Figure]]:
    """The curves of the SFT baseline, where there is one, and those of the new version."""
    stages = (("SFT", "baseline_training"), (version_after(iteration), "training"))
    found = [_curves(label, iteration.get(key) or []) for label, key in stages]
    return [curves for curves in found if curves]


def _curves(label: str, steps: Sequence[Tree]) -> list[Figure]:
    found = [_curve(label, metric, steps) for metric in _CURVES]
    return [figure for figure in found if figure is not None]


def _curve(label: str, metric: str, steps: Sequence[Tree]) -> Figure | None:
    rows = [(finite(row.get("step")), finite(row.get(metric))) for row in steps]
    points = [(step, value) for step, value in rows if step is not None and value is not None]
    if not points:
        return None
    (first, start), (last, end) = points[0], points[-1]
    caption = f"{label}: {_CURVES[metric]}"
    told = f"{number(start)} at step {number(first)}, {number(end)} at step {number(last)}"
    if infinite := sum(row.get(metric) in NOT_FINITE for row in steps):
        told += f"; not a finite number at {infinite} more"
    return Figure(caption, charts.curve(f"{caption}, {told}", points), told)
