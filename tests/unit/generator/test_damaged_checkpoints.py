"""One checkpoint of each kind of damage, 0 served; 200 of them in tests/integration."""

import pytest

from rewardloop import checkpoints, servable
from services.generator.held_weights import HeldWeights
from tests.security import checkpoints as trial
from tests.security.damage import KINDS


async def test_no_damaged_checkpoint_is_served() -> None:
    found = await trial.run(len(KINDS))
    assert found["served_kinds"] == []
    assert found["damaged_checkpoints"] == found["kinds_of_damage"] == len(KINDS)
    assert (found["corrupt_checkpoints_served"], found["served_without_postgres"]) == (0, 0)


async def test_the_trial_sees_what_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the checks of the files' meaning, what a rewritten manifest hides is served."""
    monkeypatch.setattr(servable, "require_servable", lambda *_: None)
    monkeypatch.setattr(checkpoints, "require_committed", lambda *_: None)
    monkeypatch.setattr(HeldWeights, "require_change", lambda *_: None)
    found = await trial.run(len(KINDS))
    assert "a flipped bit, manifest rewritten" in found["served_kinds"]
    assert "a wrong shape" in found["served_kinds"]
    assert "a flipped bit" not in found["served_kinds"]
