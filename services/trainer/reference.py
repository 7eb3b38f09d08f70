"""The reference's log-probabilities of a training's pairs: looked up, else computed and kept.

Knows neither models nor where they are kept.
"""

from collections.abc import Callable
from typing import Any

from services.trainer.grouping import Limit, split
from services.trainer.kept_logps import KeptLogps, key_of

SIDES = ("chosen", "rejected")

Rows = list[dict[str, Any]]
Compute = Callable[[Rows], tuple[list[float], list[float]]]


def logps_of(
    kept: KeptLogps | None, made_by: bytes, pairs: Rows, limit: Limit, compute: Compute
) -> tuple[dict[str, list[float]], int]:
    """TRL's two columns for the pairs, and how many of their answers were looked up.

    `compute` gives the sums of the chosen and of the rejected answers of some pairs.
    """
    keys = [
        [key_of(made_by, pair["prompt_ids"], pair[f"{side}_ids"]) for side in SIDES]
        for pair in pairs
    ]
    known = kept.read() if kept else {}
    num_known = sum(key in known for pair in keys for key in pair)
    missing = [n for n, pair in enumerate(keys) if any(key not in known for key in pair)]
    made: dict[bytes, float] = {}
    for part in split([_num_tokens(pairs[n]) for n in missing], limit):
        places = [missing[n] for n in part]
        found = zip(*compute([pairs[n] for n in places]), strict=True)
        for place, logps in zip(places, found, strict=True):
            made |= zip(keys[place], logps, strict=True)
    if kept and made:
        kept.add(made)
    known |= made
    columns = {
        f"ref_{side}_logps": [known[pair[n]] for pair in keys] for n, side in enumerate(SIDES)
    }
    return columns, num_known


def _num_tokens(pair: dict[str, Any]) -> int:
    return len(pair["prompt_ids"]) + sum(len(pair[f"{side}_ids"]) for side in SIDES)
