"""Charts as inline SVG. Pure.

Invariants: every text is escaped, so a label may hold anything; colours come from the
page's style sheet by class; a chart says its figures in its `<title>` too; it scales with
its view box, whose units are CSS pixels on a phone. Knows nothing of runs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from markupsafe import Markup

WIDTH = 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 12, 16, 24
"""Room for the axes' labels."""
_HEIGHT = 170


@dataclass(frozen=True, slots=True)
class Series:
    """One value a label; None where there is none."""

    name: str
    values: tuple[float | None, ...]
    is_reference: bool = False
    """Drawn dashed and hollow, without its values: something to compare with."""


@dataclass(frozen=True, slots=True)
class WinBar:
    """One head to head; shares of the decided prompts."""

    label: str
    won: float
    tied: float
    low: float | None
    """Low end of the interval of `won`."""
    high: float | None


@dataclass(frozen=True, slots=True)
class Span:
    """A distribution, by three of its values and its mean."""

    label: str
    low: float
    middle: float
    high: float
    mean: float


@dataclass(frozen=True, slots=True)
class Column:
    label: str
    num: int
    is_hollow: bool = False
    """Not on the axis: something counted beside it."""


@dataclass(frozen=True, slots=True)
class _Scale:
    """From values to pixels; a range of no width lies in the middle."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        part = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.start + part * (self.end - self.start)


def ticks(low: float, high: float, num: int = 4) -> list[float]:
    """Round values, 1, 2 or 5 times a power of ten apart, that enclose low and high; about
    `num` steps of them."""
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        room = 0.1 * abs(high) or 1.0
        low, high = low - room, high + room
    raw = (high - low) / num
    power = 10.0 ** floor(log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= 0.999 * raw)
    return [i * step for i in range(floor(low / step), ceil(high / step) + 1)]


def curve(title: str, points: Sequence[tuple[float, float]]) -> Markup:
    """A line through (step, y) points, sorted by step; there must be at least one."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    x = _Scale(xs[0], xs[-1], _LEFT, WIDTH - _RIGHT)
    grid = ticks(min(ys), max(ys))
    y = _Scale(grid[0], grid[-1], _HEIGHT - _BOTTOM, _TOP)
    whole = [t for t in ticks(xs[0], xs[-1]) if xs[0] <= t <= xs[-1] and t == int(t)]
    base = _HEIGHT - 8
    marks = [
        *_grid(grid, y),
        *(_text(x(t), base, f"{t:g}", anchor="middle") for t in whole),
        _text(_LEFT - 6, base, "step", anchor="end"),
        _path([(x(a), y(b)) for a, b in points], "ours"),
        _dot(x(xs[-1]), y(ys[-1]), "ours"),
    ]
    return _svg(title, _HEIGHT, marks)


def trend(
    title: str,
    labels: Sequence[str],
    series: Sequence[Series],
    shown: Sequence[float] = (),
) -> Markup:
    """Values side by side over a few labels; at least one value is there. The axis takes
    in the values `shown` too."""
    known = [value for one in series for value in one.values if value is not None]
    known += shown
    grid = ticks(min(known), max(known))
    y = _Scale(grid[0], grid[-1], _HEIGHT - _BOTTOM, _TOP + 8)
    x = _Scale(-0.5, len(labels) - 0.5, _LEFT, WIDTH - _RIGHT)
    marks = _grid(grid, y)
    marks += [_text(x(i), _HEIGHT - 8, v, anchor="middle") for i, v in enumerate(labels)]
    for one in sorted(series, key=lambda s: not s.is_reference):
        marks += _trend_line(one, x, y)
    return _svg(title, _HEIGHT, marks)


def _trend_line(series: Series, x: _Scale, y: _Scale) -> list[Markup]:
    kind = "paper" if series.is_reference else "ours"
    known = [(x(i), y(v), v) for i, v in enumerate(series.values) if v is not None]
    marks = [_path([(a, b) for a, b, _ in known], kind)] if len(known) > 1 else []
    marks += [_dot(a, b, kind) for a, b, _ in known]
    if not series.is_reference:
        marks += [_text(a, b - 8, f"{v:.3g}", "value", "middle") for a, b, v in known]
    return marks


def columns(title: str, bars: Sequence[Column]) -> Markup:
    """A histogram with each count above its column."""
    height, top = 150, 18
    y = _Scale(0, max(1, *(bar.num for bar in bars)), height - _BOTTOM, top)
    x = _Scale(0, len(bars), 4, WIDTH - 4)
    width = 0.76 * (WIDTH - 8) / len(bars)
    marks = [_line(4, height - _BOTTOM, WIDTH - 4, height - _BOTTOM, "axis")]
    for i, bar in enumerate(bars):
        middle, kind = x(i + 0.5), "none" if bar.is_hollow else "ours"
        if bar.num:
            tall = max(1.5, y(0) - y(bar.num))
            marks.append(_rect(middle - width / 2, y(0) - tall, width, tall, kind))
        marks.append(_text(middle, y(bar.num) - 5, f"{bar.num:,}", "value", "middle"))
        marks.append(_text(middle, height - 8, bar.label, anchor="middle"))
    return _svg(title, height, marks)


def spans(title: str, rows: Sequence[Span]) -> Markup:
    """A line from low to high a row, a bar at its middle and a dot at its mean."""
    grid = ticks(0, max(max(row.high, row.mean) for row in rows))
    x = _Scale(0, grid[-1], 8, WIDTH - 18)
    bottom = 44 * len(rows) + 4
    marks = [_line(x(t), 4, x(t), bottom, "grid") for t in grid]
    marks += [_text(x(t), bottom + 16, f"{t:,g}", anchor="middle") for t in grid]
    for i, row in enumerate(rows):
        at = 44 * i + 32
        told = f"{row.label}: median {row.middle:,.0f}, mean {row.mean:,.0f}"
        marks += [
            _text(8, at - 14, told, "value halo"),
            _whisker(x(row.low), x(row.high), at),
            _rect(x(row.middle) - 2, at - 8, 4, 16, "ours"),
            _dot(x(row.mean), at, "mean"),
        ]
    return _svg(title, bottom + 22, marks)


def win_bars(title: str, rows: Sequence[WinBar]) -> Markup:
    """Won, tied and lost of 100 %, with the interval of what was won."""
    x = _Scale(0, 1, 8, WIDTH - 16)
    bottom = 46 * len(rows) + 2
    marks: list[Markup] = []
    for i, row in enumerate(rows):
        at, won, tied = 46 * i + 24, x(row.won), x(row.won + row.tied)
        lost = max(0.0, 1 - row.won - row.tied)
        told = f"{row.won:.1%} won, {row.tied:.1%} tied, {lost:.1%} lost"
        marks += [
            _text(8, at - 7, row.label, "value strong"),
            _text(WIDTH - 16, at - 7, told, "value", "end"),
            _rect(x(0), at, won - x(0), 16, "won"),
            _rect(won, at, tied - won, 16, "tied"),
            _rect(tied, at, x(1) - tied, 16, "lost"),
            _line(x(0.5), at - 2, x(0.5), at + 18, "half"),
        ]
        if row.low is not None and row.high is not None:
            marks.append(_whisker(x(row.low), x(row.high), at + 8))
    quarters = (0, 0.25, 0.5, 0.75, 1)
    marks += [_text(x(t), bottom + 16, f"{t:.0%}", anchor="middle") for t in quarters]
    return _svg(title, bottom + 22, marks)


def bar(title: str, share: float, kind: str) -> Markup:
    """A bar for a table's cell, `share` of its width."""
    width = 100 * min(1.0, max(0.0, share))
    return Markup(
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" role="img">'
        '<title>{}</title><rect class="track" width="100" height="8"/>{}</svg>'
    ).format(title, _rect(0, 0, width, 8, kind))


def _svg(title: str, height: float, marks: Iterable[Markup]) -> Markup:
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {:.0f}" role="img"><title>{}</title>{}</svg>'
    ).format(WIDTH, height, title, Markup("").join(marks))


def _grid(grid: Sequence[float], y: _Scale) -> list[Markup]:
    lines = [_line(_LEFT, y(t), WIDTH - _RIGHT, y(t), "grid") for t in grid]
    return lines + [_text(_LEFT - 6, y(t) + 4, f"{t:.6g}", anchor="end") for t in grid]


def _whisker(low: float, high: float, at: float) -> Markup:
    ends = Markup("").join(_line(x, at - 5, x, at + 5, "whisker") for x in (low, high))
    return _line(low, at, high, at, "whisker") + ends


def _text(x: float, y: float, words: str, kind: str = "tick", anchor: str = "start") -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" class="{}" text-anchor="{}">{}</text>').format(
        x, y, kind, anchor, words
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>').format(
        x1, y1, x2, y2, kind
    )


def _rect(x: float, y: float, width: float, height: float, kind: str) -> Markup:
    return Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" class="{}"/>').format(
        x, y, width, height, kind
    )


def _dot(x: float, y: float, kind: str) -> Markup:
    return Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3.5" class="{}"/>').format(x, y, kind)


def _path(points: Sequence[tuple[float, float]], kind: str) -> Markup:
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return Markup('<polyline points="{}" class="{}"/>').format(joined, kind)
