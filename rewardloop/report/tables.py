"""The rows of the page's tables. Pure.

Cells are texts, spelled by `wording`; what is missing is `ABSENT` there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rewardloop.records import Phase
from rewardloop.report.reading import (
    Tree,
    dig,
    held_out_metrics,
    improving,
    judging_mode,
    newest_evaluation,
)
from rewardloop.report.wording import (
    duration,
    finite,
    fixed,
    hundredths,
    number,
    percent,
    plain,
    spaced,
)


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One version, for the table that has them side by side."""

    label: str
    id: str
    opponent: str | None
    """The version before it; None for the first and for the one that SFT starts from."""
    evaluation: Tree | None
    metrics: Tree | None
    """Agreement with the humans, in the run's own judging mode."""
    mean_score: Any
    """What it gave its own responses, 0 to 5."""
    length: Any
    """Mean characters of its responses in the roll-out."""
    compared_length: Any
    """The same on the prompts of the head to head."""


def summary(data: Tree) -> list[VersionRow]:
    """A row a version, in the order of their making."""
    labels = [str(plain(version.get("label"))) for version in data["versions"]]
    opponents: list[str | None] = [None, *labels]
    rows = zip(data["versions"], labels, opponents, strict=False)
    return [_version_row(data, version, label, before) for version, label, before in rows]


def _version_row(data: Tree, version: Tree, label: str, before: str | None) -> VersionRow:
    # M0 is a plain language model: it answers nobody, and meets nobody.
    opponent = None if before == "M0" else before
    own = next((i for i in improving(data) if i.get("base_version") == version.get("id")), None)
    return VersionRow(
        label=label,
        id=str(plain(version.get("id"))),
        opponent=opponent,
        evaluation=newest_evaluation(data, label, opponent) if opponent else None,
        metrics=held_out_metrics(data, version.get("id"), judging_mode(data)),
        mean_score=dig(own, "report", "health", "mean_score"),
        length=dig(own, "lengths", "mean"),
        compared_length=_compared_length(data, label),
    )


def _compared_length(data: Tree, label: str) -> Any:
    """From the newest head to head that the version was in."""
    for evaluation in reversed(data["evaluations"]):
        for side in ("a", "b"):
            length = dig(evaluation, "result", f"mean_length_{side}")
            if evaluation.get(side) == label and length is not None:
                return length
    return None


@dataclass(frozen=True, slots=True)
class Part:
    """One row of a funnel: what is left, or what went at this point."""

    what: str
    num: int
    share: float
    """Of the funnel's first row."""
    is_loss: bool


def funnel(*steps: tuple[str, Any, bool]) -> list[Part]:
    """Parts of (what, how many, whether they were lost); a loss of none is left out.

    Empty where the first is unknown or none.
    """
    known = [(what, finite(num), is_loss) for what, num, is_loss in steps]
    first = known[0][1]
    if not first:
        return []
    return [
        Part(what, int(num), num / first, is_loss)
        for what, num, is_loss in known
        if num is not None and (num or not is_loss)
    ]


def _by_reason(counts: Any, prefix: str = "") -> list[tuple[str, Any, bool]]:
    """Losses by reason, the most frequent first."""
    known = [(reason, finite(num) or 0) for reason, num in (counts or {}).items()]
    return [
        (prefix + spaced(reason), num, True)
        for reason, num in sorted(known, key=lambda item: (-item[1], item[0]))
    ]


def eft_prompts(iteration: Tree) -> list[Part]:
    eft = dig(iteration, "report", "eft") or {}
    return funnel(
        ("human-ranked prompts", eft.get("num_prompts"), False),
        ("no human order", eft.get("num_prompts_without_order"), True),
        ("a response without a score", eft.get("num_prompts_unjudged"), True),
        ("scores never in the human order", eft.get("num_prompts_disagreeing"), True),
        ("prompts in agreement", eft.get("num_prompts_agreeing"), False),
    )


def eft_judgements(iteration: Tree) -> list[Part]:
    """From what the SFT baseline wrote to what M1 learns judging from."""
    eft = dig(iteration, "report", "eft") or {}
    return funnel(
        ("judgements written", eft.get("num_judgements"), False),
        *_by_reason(eft.get("num_unparsed"), "unparsed: "),
        ("prompt without human order", eft.get("num_without_order"), True),
        ("another response has no score", eft.get("num_unjudged"), True),
        ("not in the human order", eft.get("num_out_of_order"), True),
        ("judgements in the human order", eft.get("num_agreeing"), False),
        ("thinned: too many of one score", eft.get("num_thinned"), True),
        ("over the limit", eft.get("num_over_limit"), True),
        ("kept as EFT examples", eft.get("num_kept"), False),
    )


def new_prompts(iteration: Tree) -> list[Part]:
    found = dig(iteration, "report", "prompts") or {}
    return funnel(
        ("prompts written", found.get("num_written"), False),
        *_by_reason(found.get("rejected")),
        ("accepted", found.get("num_accepted"), False),
    )


def paired_prompts(iteration: Tree) -> list[Part]:
    found = dig(iteration, "report", "pairing") or {}
    num_prompts, unpaired = finite(found.get("num_prompts")), _by_reason(found.get("unpaired"))
    num_left = None if num_prompts is None else num_prompts - sum(num for _, num, _ in unpaired)
    return funnel(
        ("prompts", num_prompts, False), *unpaired, ("prompts with a pair", num_left, False)
    )


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    is_past_limit: bool = False


@dataclass(frozen=True, slots=True)
class HealthRow:
    """One figure of the judge, an iteration a cell."""

    what: str
    limit: str
    cells: tuple[Cell, ...]


_Format = Callable[[Any], str]

_HEALTH: tuple[tuple[str, str, _Format, str | None], ...] = (
    ("unparsed_rate", "judgements without a score", percent, "max_unparsed_rate"),
    ("top_score_share", "scores that are the highest", percent, "max_top_score_share"),
    ("tie_rate", "prompts whose responses all tie", percent, "max_tie_rate"),
    ("length_correlation", "correlation of score with length", fixed, None),
    ("human_length_correlation", "the same of the humans' ranks", fixed, None),
    ("length_excess", "difference of the two", fixed, "max_length_correlation"),
    ("mean_score", "mean score, 0 to 5", hundredths, None),
    ("entropy_bits", "entropy of the scores, bits (at most 2.58)", hundredths, None),
    ("judge_spread", "spread of repeated judgements, points", hundredths, None),
    ("pairwise_accuracy", "pairs ordered as humans did", percent, "min_pairwise_accuracy"),
    ("spearman", "Spearman's rho with the human order", fixed, "min_spearman"),
)
"""Figure, what it is, how it is spelled, and the key of `health` that limits it."""


def health(data: Tree) -> list[HealthRow]:
    """The judge of each improving iteration against the limits of the config."""
    figures = [_health_of(data, iteration) for iteration in improving(data)]
    return [_health_row(data, figures, *row) for row in _HEALTH]


def _health_of(data: Tree, iteration: Tree) -> dict[str, Any]:
    """The iteration's own scores, and its judge's agreement with humans."""
    measured = held_out_metrics(data, iteration.get("base_version"), judging_mode(data))
    health = dig(iteration, "report", "health") or {}
    own = finite(health.get("length_correlation"))
    # Older runs were held against 0 and stored no difference.
    excess = {} if own is None else {"length_excess": abs(own)}
    return {**(measured or {}), **excess, **health}


def _health_row(
    data: Tree,
    figures: list[dict[str, Any]],
    key: str,
    what: str,
    spelled: _Format,
    limit_key: str | None,
) -> HealthRow:
    limit = finite(dig(data["run"], "config", "health", limit_key)) if limit_key else None
    is_floor = bool(limit_key and limit_key.startswith("min_"))
    told = "" if limit is None else f"{'at least' if is_floor else 'at most'} {spelled(limit)}"
    values = [finite(one.get(key)) for one in figures]
    cells = (Cell(spelled(v), _is_past(v, limit, is_floor)) for v in values)
    return HealthRow(what, told, tuple(cells))


def _is_past(value: float | None, limit: float | None, is_floor: bool) -> bool:
    if value is None or limit is None:
        return False
    return value < limit if is_floor else value > limit


def num_scored_pairs(metrics: Tree) -> int | None:
    """Pairs whose responses both have a score."""
    found = [finite(metrics.get(f"num_{how}")) for how in ("agreeing", "reversed", "tied")]
    known = [int(num) for num in found if num is not None]
    return sum(known) if len(known) == len(found) else None


@dataclass(frozen=True, slots=True)
class TimingRow:
    phase: str
    cells: tuple[str, ...]


def timings(data: Tree) -> list[TimingRow]:
    """Time a phase and iteration, in the order of the method, and their sums."""
    columns = [i.get("seconds") or {} for i in data["iterations"]]
    phases = [p for p in Phase if any(finite(one.get(p)) is not None for one in columns)]
    rows = [TimingRow(spaced(p), tuple(duration(c.get(p)) for c in columns)) for p in phases]
    sums = (sum(finite(s) or 0 for s in one.values()) for one in columns)
    return [*rows, TimingRow("in all", tuple(map(duration, sums)))] if rows else []


def notes(found: Any) -> list[tuple[str, str]]:
    """What a training noted in free form; nested values are left to the API."""
    items = (found or {}).items()
    return [
        (spaced(key), number(value) if finite(value) is not None else str(value))
        for key, value in items
        if isinstance(value, str | int | float)
    ]


def standing(result: Any) -> str:
    """What the interval of the net win rate says of A."""
    low, high = finite(dig(result, "net_low")), finite(dig(result, "net_high"))
    if low is None or high is None:
        return ""
    return "ahead" if low > 0 else "behind" if high < 0 else "no clear difference"
