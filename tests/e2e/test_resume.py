"""A training that is killed goes on from its last state and ends bit for bit as one that is not."""

import asyncio
from pathlib import Path

import pytest

from tests.e2e.killed_training import KINDS, NUM_KILLS, SAVE_EVERY, compare

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("kind", KINDS)
def test_five_kills_change_nothing(tiny: Path, tmp_path: Path, kind: str) -> None:
    compared = asyncio.run(compare(kind, tiny, tmp_path))
    assert len(compared.kills) == NUM_KILLS
    assert compared.equal_weights, compared.kills
    assert compared.learnt
    assert compared.found == compared.expected
    assert compared.most_lost <= SAVE_EVERY
