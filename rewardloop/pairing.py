"""Scored responses to preference pairs. Pure.

Best mean score against worst (Yuan et al., section 2.3). A response without a
parsed score is never a side of a pair.
"""

from collections.abc import Iterable

from rewardloop.config import Pairing
from rewardloop.records import PreferencePair, ScoredResponse


def best_against_worst(
    responses: Iterable[ScoredResponse], config: Pairing
) -> PreferencePair | None:
    """The pair of one prompt's responses, or None where the scores do not tell them apart.

    Among equals the lower response id is taken, so that the choice repeats.
    """
    scored = [(r.score, r) for r in responses if r.score is not None]
    if len(scored) < 2:
        return None
    best_score, best = max(scored, key=lambda item: (item[0], -item[1].response_id))
    worst_score, worst = min(scored, key=lambda item: (item[0], item[1].response_id))
    if best_score - worst_score <= config.min_margin:
        return None
    return PreferencePair(chosen=best, rejected=worst)
