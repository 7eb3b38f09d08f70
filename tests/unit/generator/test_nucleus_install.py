"""An engine whose top-p filter could not be replaced serves all the same, and says so."""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from rewardloop.errors import UpstreamUnavailable
from services.generator import nucleus_install


class Workers:
    """An engine that is only its workers' reports."""

    def __init__(self, *reports: dict[str, Any]) -> None:
        self.reports = list(reports)

    async def collective_rpc(self, method: str) -> list[dict[str, Any]]:
        assert method == "sort_heads_only"
        return self.reports


HEAD = {"sampler": "head", "reason": None}
VLLM_ON_A_GPU = {"sampler": "vllm", "reason": None}
OTHER_VLLM = {"sampler": "vllm", "reason": "it is another vLLM"}
SORTS_ALL = "rewardloop_top_p_sorts_all"


async def test_the_reason_is_told_before_the_first_request(
    replica: Any, caplog: pytest.LogCaptureFixture, metric: Callable[..., float]
) -> None:
    replica.engine.second_sampler = OTHER_VLLM
    assert (await replica.chat()).status_code == 200
    (warning,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "sorts the whole vocabulary" in warning.message
    assert "it is another vLLM" in warning.message
    assert metric(SORTS_ALL) == 1


async def test_where_all_sort_heads_nothing_is_warned_of(
    caplog: pytest.LogCaptureFixture, metric: Callable[..., float]
) -> None:
    caplog.set_level(logging.INFO)
    await nucleus_install.install(Workers(HEAD, HEAD))
    assert [(r.levelname, r.message) for r in caplog.records] == [
        ("INFO", "top-p sorts the head of each distribution only")
    ]
    assert metric(SORTS_ALL) == 0


async def test_a_gpu_samples_as_vllm_does_without_a_word(
    caplog: pytest.LogCaptureFixture, metric: Callable[..., float]
) -> None:
    caplog.set_level(logging.INFO)
    await nucleus_install.install(Workers(VLLM_ON_A_GPU))
    assert caplog.records == []
    assert metric(SORTS_ALL) == 0


async def test_an_engine_that_does_not_answer_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Hanging:
        async def collective_rpc(self, _: str) -> Any:
            import asyncio

            await asyncio.Event().wait()

    monkeypatch.setattr(nucleus_install, "INSTALL_SECONDS", 0.01)
    with pytest.raises(UpstreamUnavailable, match="did not choose its sampler"):
        await nucleus_install.install(Hanging())
