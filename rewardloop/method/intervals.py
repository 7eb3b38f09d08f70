"""95 % intervals of the figures that the product shows. Pure statistics.

One for each way in which figures come about: `student` for a mean over seeds, `wilson` for
a share of prompts, `paired` for wins less losses over prompts, `ratio` for a share of the
pairs or judgements within prompts, `correlation` for a mean over prompts. Two invariants:
prompts are what is drawn, never the pairs or judgements within one, since these depend on
each other; and an interval that would not hold what it claims is left out with a reason.
What each covers is measured in the tests and by `make bench-coverage`; why these and no
others: docs/decisions/0017.

All take arrays, so that thousands of simulated experiments cost one call. Suffixes:
E experiments (any leading axes), S seeds, P prompts. Knows nothing of judges nor runs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

CONFIDENCE = 0.95
MIN_PROMPTS = 10
"""Prompts that have a say in a figure; below, coverage is too far off 95 %, either way."""
_EDGE_WEIGHT = 0.1
"""Of an imagined prompt at each end of a correlation's range, for the variance alone: a
few prompts of two responses are often all +1, which does not mean that the next one is."""
_NUM_HALVINGS = 50
"""Of the range in which `paired` looks for its ends: 2 / 2^50 is below any rounding."""


@dataclass(frozen=True, slots=True)
class Interval:
    """The 95 % interval of one figure, and what it is over."""

    low: float | None
    high: float | None
    over: str
    """What was drawn at random, say "prompts"."""
    num: int
    """Of these, how many have a say in the figure."""
    reason: str | None = None
    """Why there is no interval."""


def student(values_ES: "ArrayLike") -> "tuple[Floats, Floats]":
    """The mean of a few independent values, after Student: mean -+ t sqrt(s^2 / n).

    Exact where the values are normal. Needs two values at least; with two, t is 12.7.
    """
    import numpy as np
    from scipy.stats import t

    values = np.asarray(values_ES, dtype=float)
    num = values.shape[-1]
    mean = values.mean(axis=-1)
    half = t.ppf((1 + CONFIDENCE) / 2, num - 1) * values.std(axis=-1, ddof=1) / num**0.5
    return mean - half, mean + half


def wilson(num_successes_E: "ArrayLike", num_trials_E: "ArrayLike") -> "tuple[Floats, Floats]":
    """A share k / n of independent trials, by Wilson's score interval (Wilson 1927)."""
    import numpy as np

    trials = np.asarray(num_trials_E, dtype=float)
    share = np.asarray(num_successes_E, dtype=float) / trials
    return _score_interval(share, trials, np.asarray(_normal_quantile()))


def paired(
    num_wins_E: "ArrayLike", num_losses_E: "ArrayLike", num_prompts: int
) -> "tuple[Floats, Floats]":
    """Wins less losses, of all prompts: Tango's score interval for the difference of paired
    proportions (Tango 1998, Statistics in Medicine 17, equation 8).

    It holds every difference d that a score test at 5 % does not refuse:
    |b - c - n d| <= z sqrt(n (2 q + d (1 - d))), where b and c are wins and losses and q is
    the likeliest loss rate given d. So 24 ties of 24 give -0.14 to 0.14, and no width of 0.
    """
    import numpy as np

    wins, losses = (np.asarray(x, dtype=float) for x in (num_wins_E, num_losses_E))
    estimate = (wins - losses) / num_prompts
    z = _normal_quantile()

    def end(inner: "Floats", outer: float) -> "Floats":
        near, far = inner, np.full_like(inner, outer)
        for _ in range(_NUM_HALVINGS):
            middle = (near + far) / 2
            holds = np.abs(_tango(wins, losses, num_prompts, middle)) <= z
            near, far = np.where(holds, middle, near), np.where(holds, far, middle)
        return near

    return end(estimate, -1.0), end(estimate, 1.0)


def _tango(wins: "Floats", losses: "Floats", num: int, difference: "Floats") -> "Floats":
    """The score statistic of `difference`; infinite where it is impossible."""
    import numpy as np

    b = (2 * num - wins + losses) * difference - wins - losses
    c = -losses * difference * (1 - difference)
    loss_rate = (np.sqrt(np.maximum(b * b - 8 * num * c, 0)) - b) / (4 * num)
    variance = num * np.maximum(2 * loss_rate + difference * (1 - difference), 0)
    gap = wins - losses - num * difference
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic: Floats = np.where(np.abs(gap) < 1e-12, 0.0, gap / np.sqrt(variance))
    return statistic


def ratio(*figures: "tuple[ArrayLike, ArrayLike]") -> "tuple[Floats, Floats]":
    """A share of what lies within prompts (say pairs): sum of parts / sum of wholes.

    Each of `figures` is (parts_EP, wholes_EP); of several, it is the mean of the shares. A
    prompt that has no whole has no say. The variance is that of leaving out one prompt at a
    time (the jackknife, linearised), v = sum (e_p / (1 - h_p))^2 (n - 1) / n with
    e_p = (part_p - share whole_p) / sum of wholes, and h_p = whole_p / sum of wholes. The
    ends are Wilson's for as many independent answers as have that variance,
    share (1 - share) / v (Korn and Graubard 1998), with Student's t of 1 / sum h^2 - 1
    degrees of freedom, so that prompts with most of the pairs do not count as many. A share
    of 0 or 1 counts its prompts as one answer each.
    """
    import numpy as np

    share, error, part = _mean_of_shares(figures)
    freedom = np.maximum(1 / (part**2).sum(axis=-1) - 1, 1)
    return _like_wilson(share, _jackknife(error, part), freedom + 1, freedom)


def ratio_variance(parts: "ArrayLike", wholes: "ArrayLike") -> float:
    """The variance v of `ratio`."""
    _, error, part = _mean_of_shares([(parts, wholes)])
    return float(_jackknife(error, part))


def _mean_of_shares(
    figures: "Sequence[tuple[ArrayLike, ArrayLike]]",
) -> "tuple[Floats, Floats, Floats]":
    import numpy as np

    each = [_linearised(*(np.asarray(side, dtype=float) for side in f)) for f in figures]
    share, error, part = (np.mean([f[i] for f in each], axis=0) for i in range(3))
    return share, error, part


def _jackknife(error: "Floats", part: "Floats") -> "Floats":
    import numpy as np

    num = (part > 0).sum(axis=-1)
    squares = (error / np.maximum(1 - part, 1e-9)) ** 2
    variance: Floats = squares.sum(axis=-1) * (num - 1) / num
    return variance


def _linearised(parts: "Floats", wholes: "Floats") -> "tuple[Floats, Floats, Floats]":
    """The share, each prompt's pull on it, and each prompt's part of the whole."""
    whole = wholes.sum(axis=-1, keepdims=True)
    share = parts.sum(axis=-1, keepdims=True) / whole
    return share[..., 0], (parts - share * wholes) / whole, wholes / whole


def correlation(values_EP: "ArrayLike", counted_EP: "ArrayLike") -> "tuple[Floats, Floats]":
    """The mean over prompts of correlations, -1 to 1; `counted_EP` is 1 where a prompt has
    one and 0 where not.

    As `ratio`, on the range moved to 0..1, with an imagined `_EDGE_WEIGHT` of a prompt at
    each end of the range in the variance.
    """
    import numpy as np

    counted = np.asarray(counted_EP, dtype=float)
    values = (np.asarray(values_EP, dtype=float) + 1) / 2
    num = counted.sum(axis=-1)
    mean = (values * counted).sum(axis=-1) / num
    squares = (counted * (values - mean[..., None]) ** 2).sum(axis=-1)
    squares = squares + _EDGE_WEIGHT * (mean**2 + (1 - mean) ** 2)
    low, high = _like_wilson(mean, squares / (num - 1) / num, num, num - 1)
    return 2 * low - 1, 2 * high - 1


def _like_wilson(
    share: "Floats", variance: "Floats", num: "Floats", freedom: "Floats"
) -> "tuple[Floats, Floats]":
    """Wilson's interval for as many answers as have the variance; `num` where it has none."""
    import numpy as np
    from scipy.stats import t

    spread = share * (1 - share)
    has_both = (variance > 1e-15) & (spread > 1e-15)
    answers = np.where(has_both, spread / np.where(has_both, variance, 1), num)
    quantile = np.asarray(t.ppf((1 + CONFIDENCE) / 2, freedom))
    return _score_interval(np.clip(share, 0, 1), answers, quantile)


def _score_interval(share: "Floats", num: "Floats", quantile: "Floats") -> "tuple[Floats, Floats]":
    """(p + q^2 / 2n -+ q sqrt(p (1 - p) / n + q^2 / 4n^2)) / (1 + q^2 / n)."""
    import numpy as np

    square = quantile**2 / num
    half = np.sqrt(square * share * (1 - share) + square**2 / 4)
    low = (share + square / 2 - half) / (1 + square)
    high = (share + square / 2 + half) / (1 + square)
    return np.clip(low, 0, share), np.clip(high, share, 1)


def _normal_quantile() -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


def of_share(successes: Sequence[float], trials: Sequence[float]) -> Interval:
    """`wilson` of one experiment, given 0 or 1 a prompt."""
    num = round(sum(trials))
    return over_prompts(num, lambda: wilson(sum(successes), num))


def of_ratio(*figures: tuple[Sequence[float], Sequence[float]]) -> Interval:
    """`ratio` of one experiment; of several shares the one with the fewest prompts counts."""
    num = min(sum(whole > 0 for whole in wholes) for _, wholes in figures)
    return over_prompts(num, lambda: ratio(*figures))


def of_correlation(values: Sequence[float]) -> Interval:
    """`correlation` of one experiment, given the prompts that have one."""
    return over_prompts(len(values), lambda: correlation(values, [1] * len(values)))


def over_prompts(num: int, compute: "Callable[[], tuple[Floats, Floats]]") -> Interval:
    """What `compute` gives for `num` prompts, or the reason why there is no interval."""
    if num < MIN_PROMPTS:
        return Interval(None, None, "prompts", num, f"fewer than {MIN_PROMPTS} prompts")
    low, high = compute()
    return Interval(float(low), float(high), "prompts", num)
