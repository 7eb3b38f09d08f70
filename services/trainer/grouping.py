"""Rows of like length share a forward pass. Knows lengths alone.

The longest rows come first, so that memory that is short tells itself at once.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """How much goes through one forward pass; a row that is larger goes alone."""

    num_rows: int | None = None
    num_tokens: int | None = None
    """Of rows and padding together."""


def split(lengths: list[int], limit: Limit) -> list[list[int]]:
    """Places of rows, part by part."""
    parts: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda n: (-lengths[n], n)):
        if not parts or _is_full(len(parts[-1]), lengths[parts[-1][0]], limit):
            parts.append([])
        parts[-1].append(place)
    return parts


def _is_full(num_rows: int, longest: int, limit: Limit) -> bool:
    return num_rows == limit.num_rows or (
        limit.num_tokens is not None and (num_rows + 1) * longest > limit.num_tokens
    )
