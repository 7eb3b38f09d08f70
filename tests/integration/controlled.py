"""A world whose tasks see within moments that somebody stops them."""

from typing import Any

import pytest

from services.generator.stub_engine import Faults
from services.worker import permit

HANGING = Faults(latency_seconds=3600)


async def with_three_prompts(world: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A world with a base version and three prompts; no service runs yet."""
    monkeypatch.setattr(permit, "CHECK_SECONDS", 0.05)
    await world.with_base()
    await world.add_prompts("one", "two", "three")
    return world
