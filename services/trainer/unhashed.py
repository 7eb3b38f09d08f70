"""TRL's DPO without its hash of all weights.

TRL 1.16 names the cache file of the reference's log-probabilities after a SHA-256 of every
weight, taken on one core of the CPU. A training's process reads no such file of another: its
rows are made in memory, and `kept_logps` keeps the log-probabilities. For 8B parameters it is
about half a minute of each training, with the GPU idle. Can go when TRL hashes on demand.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from trl.trainer import dpo_trainer


@contextmanager
def unhashed() -> Iterator[None]:
    """While a trainer is made in it, or by a function that it decorates."""
    theirs = dpo_trainer.hash_module
    dpo_trainer.hash_module = lambda _: uuid4().hex  # no two trainings share a file
    try:
        yield
    finally:
        dpo_trainer.hash_module = theirs
