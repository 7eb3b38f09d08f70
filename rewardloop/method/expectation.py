"""A verdict by expectation: what an engine would write next, instead of what it wrote. Pure.

One forward pass gives the probabilities of the next token at the place where the verdict
stands. Their mean over the verdicts is the judge's expected verdict (Liu et al., G-Eval,
arXiv 2303.16634, section 2.3): it has no sampling noise and hardly a tie.

    p_w   = sum of the probabilities of the tokens that spell the verdict w
    mass  = sum over w of p_w
    score = sum over w of value_w p_w / mass

Invariants: only the log-probabilities that the engine told are counted, so `mass` is at most
what there is; below MIN_MASS there is no verdict. A token spells a verdict whatever blanks stand
around it, since tokenizers differ in where they put them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp
from typing import Any

from rewardloop.records import SCORE_DECIMALS, Preference

TOP_LOGPROBS = 20
"""The most that OpenAI's API gives, and vLLM in its default settings."""
MIN_MASS = 0.1
"""Below this an engine did not go on from our beginning of the answer, or its tokenizer has no
token for the verdict there: 0.14 to 0.87 was seen where both were right, at most 0.014 elsewhere.
"""
POINTS = ("0", "1", "2", "3", "4", "5")
PREFERENCES = {"1": Preference.FIRST, "2": Preference.SECOND}
"""As a judge is asked to spell them at once."""
_BLANKS = " \t\r\n\u2581\u0120\u010a"
"""White space, and how vocabularies spell it."""


class NoLogprobs(ValueError):
    """The engine told no log-probabilities of its choice."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """How probable each verdict is as the next words."""

    probabilities: tuple[float, ...]
    """By verdict, as the engine gave them: their sum is `mass`, not 1."""

    @property
    def mass(self) -> float:
        return round(sum(self.probabilities), SCORE_DECIMALS)

    @property
    def is_enough(self) -> bool:
        return self.mass >= MIN_MASS

    def mean(self, values: Sequence[float]) -> float:
        """The expected value where each verdict is worth its `values`."""
        weighted = sum(v * p for v, p in zip(values, self.probabilities, strict=True))
        return round(weighted / sum(self.probabilities), SCORE_DECIMALS)


def expected_score(found: Distribution) -> float:
    """From 0 to 5 points."""
    return found.mean(range(len(POINTS)))


def probability_of_first(found: Distribution) -> float:
    """That the response shown first is the better one."""
    return found.mean([float(which is Preference.FIRST) for which in PREFERENCES.values()])


def preferred(probability: float) -> Preference:
    """The side that is the more probable one."""
    if probability == 0.5:
        return Preference.TIE
    return Preference.FIRST if probability > 0.5 else Preference.SECOND


def points_of(choice: Mapping[str, Any]) -> Distribution:
    """How probable each number of points from 0 to 5 is.

    Raises:
        NoLogprobs: the choice has none.
    """
    return _summed(choice, POINTS)


def preferences_of(choice: Mapping[str, Any]) -> Distribution:
    """How probable each of PREFERENCES is.

    Raises:
        NoLogprobs: the choice has none.
    """
    return _summed(choice, tuple(PREFERENCES))


def _summed(choice: Mapping[str, Any], digits: Sequence[str]) -> Distribution:
    told = [(token.strip(_BLANKS), p) for token, p in _next_tokens(choice)]
    shares = [sum(p for token, p in told if token == digit) for digit in digits]
    return Distribution(tuple(round(min(1.0, share), SCORE_DECIMALS) for share in shares))


def _next_tokens(choice: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The first token's alternatives by their text, and their probabilities. Two of them may
    have one text; the sampled one is told apart where it is none of the most probable."""
    try:
        sampled = choice["logprobs"]["content"][0]
        told = [_probability(entry) for entry in sampled["top_logprobs"]]
        if sampled["token"] not in [token for token, _ in told]:
            told.append(_probability(sampled))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise NoLogprobs("the choice holds no log-probabilities") from error
    if not any(p for _, p in told):
        raise NoLogprobs("the choice holds no log-probability that is a number")
    return told


def _probability(entry: Mapping[str, Any]) -> tuple[str, float]:
    logprob = float(entry["logprob"])
    return str(entry["token"]), exp(min(0.0, logprob)) if logprob == logprob else 0.0
