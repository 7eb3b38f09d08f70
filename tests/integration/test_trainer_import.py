"""The first model of a deployment: what its import asks of the child, and what it tells."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from rewardloop.store import versions
from services.trainer import import_base


async def test_what_the_check_of_the_template_found_is_told(
    world: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[dict[str, Any]] = []

    async def child(module: str, task: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        asked.append(task)
        assert module == "services.trainer.base_model"
        yield {"manifest": {"files": {}, "chat_template": ["it trims answers"]}}

    monkeypatch.setattr(import_base, "run_child", child)
    await import_base.import_base(world.settings, "mine", "/model", "chatml")
    assert asked == [
        {
            "root": str(world.settings.checkpoint_root),
            "version": "mine",
            "source": "/model",
            "chat_template": "chatml",
        }
    ]
    assert capsys.readouterr().out == "mine: it trims answers\n"
    async with world.store.transaction() as session:
        assert await versions.serving(session) == "mine"
