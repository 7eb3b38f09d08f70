"""Head to head of two models, A against B, from pairwise judgements. Pure statistics.

Each prompt is judged twice, with A's response shown first and with B's, and
counts once (Yuan et al., section 3.1: a tie where the orders disagree).
A prompt with a judgement that could not be read is undecided: it is counted,
and is never a tie. Swapping A and B swaps wins and losses, and nothing else.

Comparisons by expectation say how probable it is that the response shown first is
the better one. Then the mean of both orders decides: A wins above a half. (Averaged
so, a judge's liking for a place cancels out, where the paper's rule calls it a tie.)
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean
from typing import Any

from rewardloop.method.intervals import over_prompts, paired, wilson
from rewardloop.records import SCORE_DECIMALS, Preference


class Outcome(StrEnum):
    """Of A against B on one prompt."""

    WIN = "win"
    """A's response was preferred in both orders."""
    LOSS = "loss"
    """B's response was preferred in both orders."""
    TIE = "tie"
    """The orders disagree, or at least one of them says tie."""
    UNDECIDED = "undecided"
    """At least one judgement could not be read."""


@dataclass(frozen=True, slots=True)
class ComparedPrompt:
    """A prompt's two judgements, and the responses' lengths in characters."""

    a_first: Preference | None
    """What the judge said when it was shown A's response first."""
    b_first: Preference | None
    """What it said when it was shown B's first: SECOND is A."""
    length_a: int
    length_b: int
    probability_a: float | None = None
    """By expectation: that A's response is the better one, mean of both orders."""


Judged = tuple[Preference | None, float | None]
"""One order's preference, and by expectation the probability of the response shown first."""


def compared(a_first: Judged, b_first: Judged, *, length_a: int, length_b: int) -> ComparedPrompt:
    """What both orders say. The mean needs both, and both by expectation."""
    (a_said, of_a), (b_said, of_b) = a_first, b_first
    mean = None if of_a is None or of_b is None else round((of_a + 1 - of_b) / 2, SCORE_DECIMALS)
    return ComparedPrompt(a_said, b_said, length_a, length_b, mean)


@dataclass(frozen=True, slots=True)
class HeadToHead:
    """Rates are of the decided prompts (wins, losses and ties); None where there are none."""

    num_prompts: int
    num_wins: int
    num_losses: int
    num_ties: int
    num_undecided: int
    win_rate: float | None
    loss_rate: float | None
    tie_rate: float | None
    net_win_rate: float | None
    """(wins - losses) / decided, -1 to 1; above 0, A is ahead."""
    net_low: float | None
    """Low end of its 95 % interval over decided prompts (`intervals.paired`); None where
    there are fewer than `intervals.MIN_PROMPTS` of them."""
    net_high: float | None
    win_low: float | None
    """Low end of the win rate's 95 % interval over decided prompts, after Wilson."""
    win_high: float | None
    mean_length_a: float | None
    """Characters, over all prompts."""
    mean_length_b: float | None
    position_bias: float | None
    """Of the prompts where each order names a response, but not the same one: the part
    where it named the one shown first. 0.5 favours no place."""
    mean_probability: float | None = None
    """By expectation: that A's response is the better one, mean over the decided prompts."""
    interval_over: str = "decided prompts"
    """What both intervals are over."""
    interval_reason: str | None = None
    """Why there are none."""


def outcome(a_first: Preference | None, b_first: Preference | None) -> Outcome:
    """Of the two judgements of one prompt: A shown first, then B shown first."""
    if a_first is None or b_first is None:
        return Outcome.UNDECIDED
    if (a_first, b_first) == (Preference.FIRST, Preference.SECOND):
        return Outcome.WIN
    if (a_first, b_first) == (Preference.SECOND, Preference.FIRST):
        return Outcome.LOSS
    return Outcome.TIE


def outcome_of(row: ComparedPrompt) -> Outcome:
    if row.probability_a is None:
        return outcome(row.a_first, row.b_first)
    if row.probability_a == 0.5:
        return Outcome.TIE
    return Outcome.WIN if row.probability_a > 0.5 else Outcome.LOSS


def head_to_head(rows: Sequence[ComparedPrompt]) -> HeadToHead:
    """Count the rows and estimate how sure the rates are."""
    outcomes = [outcome_of(row) for row in rows]
    count = Counter(outcomes)
    num_decided = len(rows) - count[Outcome.UNDECIDED]
    num_wins, num_losses = count[Outcome.WIN], count[Outcome.LOSS]
    return HeadToHead(
        num_prompts=len(rows),
        num_wins=num_wins,
        num_losses=num_losses,
        num_ties=count[Outcome.TIE],
        num_undecided=count[Outcome.UNDECIDED],
        win_rate=_share(num_wins, num_decided),
        loss_rate=_share(num_losses, num_decided),
        tie_rate=_share(count[Outcome.TIE], num_decided),
        net_win_rate=_share(num_wins - num_losses, num_decided),
        mean_length_a=_mean([row.length_a for row in rows]),
        mean_length_b=_mean([row.length_b for row in rows]),
        position_bias=_position_bias(rows),
        mean_probability=_mean(
            [row.probability_a for row in rows if row.probability_a is not None]
        ),
        **_intervals(num_wins, num_losses, num_decided),
    )


def with_intervals(result: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A stored result whose intervals are of this kind: older ones had a bootstrap's for the
    net, which shrinks to a point where all prompts tie, and are computed anew."""
    if result is None:
        return None
    if "interval_over" in result or "num_wins" not in result:
        return dict(result)
    won, lost = result["num_wins"], result["num_losses"]
    return {**result, **_intervals(won, lost, won + lost + result["num_ties"])}


def _intervals(num_wins: int, num_losses: int, num_decided: int) -> dict[str, Any]:
    net = over_prompts(num_decided, lambda: paired(num_wins, num_losses, num_decided))
    win = over_prompts(num_decided, lambda: wilson(num_wins, num_decided))
    return {
        "net_low": net.low,
        "net_high": net.high,
        "win_low": win.low,
        "win_high": win.high,
        "interval_over": "decided prompts",
        "interval_reason": net.reason,
    }


def _position_bias(rows: Sequence[ComparedPrompt]) -> float | None:
    """An order that names the same place twice has named two responses."""
    named = [row.a_first for row in rows if row.a_first == row.b_first]
    num_first, num_second = named.count(Preference.FIRST), named.count(Preference.SECOND)
    return _share(num_first, num_first + num_second)


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
