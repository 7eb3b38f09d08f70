"""How long a step may take in which an engine loads or computes something."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rewardloop.errors import UpstreamUnavailable

DRAIN_SECONDS = 60.0
"""So long a swap waits for requests in flight before it ends them, unless it is told otherwise."""
STEP_SECONDS = 60.0
"""For canaries, and for checksums of the smallest model."""
LOAD_SECONDS = 60.0
"""For loading the smallest model."""
BYTES_PER_SECOND = 100e6
"""What a slow disk gives: a model of so many bytes has a second more in either step."""


def reading_seconds(num_bytes: int) -> float:
    """What the size of a version's files adds to the time that a step may take."""
    return num_bytes / BYTES_PER_SECOND


@asynccontextmanager
async def within(seconds: float, what: str) -> AsyncIterator[None]:
    """
    Raises:
        UpstreamUnavailable: the block took longer; another try may be in time.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise UpstreamUnavailable(f"{what} took longer than {seconds:.0f} s") from error
