"""How long what failed rests before it is tried again. Pure."""

from datetime import timedelta

FIRST_SECONDS = 2.0
GROWTH = 5.0
MAX_SECONDS = 300.0


def pause_after(num_attempts: int) -> timedelta:
    """After so many failed attempts: 2 s, 10 s, 50 s, ..., and 2 s where none counted."""
    steps = min(max(0, num_attempts - 1), 10)
    return timedelta(seconds=min(FIRST_SECONDS * GROWTH**steps, MAX_SECONDS))
