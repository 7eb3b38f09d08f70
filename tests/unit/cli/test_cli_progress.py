"""`follow` on an API that plays an iteration."""

import io
from typing import Any

import pytest

from rewardloop.cli import progress
from rewardloop.cli.progress import follow
from rewardloop.cli.terminal import Console
from rewardloop.errors import EnvironmentUnfit

ZERO = {
    "responses": 0,
    "responses_expected": 0,
    "judgements": 0,
    "judgements_expected": 0,
    "train_steps": 0,
    "train_steps_total": 0,
}


def view(
    index: int, state: str, phase: str, swap: float | None = None, **counts: int
) -> dict[str, Any]:
    return {
        "id": f"i{index}",
        "index": index,
        "state": state,
        "phase": phase,
        "counts": {**ZERO, **counts},
        "tokens_per_second": 123.4,
        "seconds": {"swap": swap},
    }


class FakeApi:
    """Answers each poll with the next list of views, the last for ever."""

    def __init__(self, *polls: list[dict[str, Any]]) -> None:
        self.polls = list(polls)
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def get(self, path: str, **params: Any) -> Any:
        self.asked.append((path, params))
        return {"items": self.polls.pop(0) if len(self.polls) > 1 else self.polls[0]}


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "POLL_SECONDS", 0)


def console(terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=200)


def text(shown: Console) -> str:
    assert isinstance(shown.file, io.StringIO)
    return shown.file.getvalue()


EXPECTED = {"responses_expected": 8, "judgements_expected": 24}
PLAY = [
    [view(1, "queued", "waiting"), view(0, "running", "prepare")],
    [view(1, "queued", "waiting"), view(0, "running", "rollout", responses=3, **EXPECTED)],
    [view(1, "queued", "waiting"), view(0, "running", "rollout", responses=8, **EXPECTED)],
    [view(1, "running", "prepare"), view(0, "succeeded", "done", 2.5, responses=8, **EXPECTED)],
    [view(1, "failed", "train"), view(0, "succeeded", "done", 2.5, responses=8, **EXPECTED)],
]


async def test_it_ends_when_all_have_ended_and_returns_them_in_order() -> None:
    api = FakeApi(*PLAY)
    views = await follow(api, "r1", console())  # type: ignore[arg-type]
    assert [(v["index"], v["state"]) for v in views] == [(0, "succeeded"), (1, "failed")]
    assert len(api.asked) == 5
    assert api.asked[0] == ("/v1/iterations", {"run_id": "r1", "limit": 200})


async def test_each_phase_gets_one_line() -> None:
    shown = console()
    await follow(FakeApi(*PLAY), "r1", shown)  # type: ignore[arg-type]
    told = [line for line in text(shown).splitlines() if line.startswith("iteration")]
    assert told == [
        "iteration 0: prepare",
        "iteration 0: rollout",
        "iteration 0: done",
        "iteration 1: prepare",
        "iteration 1: train",
    ]


async def test_bars_say_how_much_is_done() -> None:
    counts = {"judgements": 12, "train_steps": 1, "train_steps_total": 2}
    last = view(0, "succeeded", "done", 1.0, responses=8, **EXPECTED, **counts)
    shown = console(terminal=True)
    await follow(FakeApi([last]), "r1", shown)  # type: ignore[arg-type]
    lines = text(shown).splitlines()
    for name, done in {"sample": "8/8", "judge": "12/24", "train": "1/2", "swap": "1/1"}.items():
        assert any(f"[0] {name}" in line and done in line for line in lines), name
    assert any("123 tokens/s" in line for line in lines if "judge" in line)
    assert not any("tokens/s" in line for line in lines if "sample" in line)
    assert "iteration 0: done" in text(shown)


async def test_a_failed_swap_is_not_shown_as_done() -> None:
    shown = console()
    await follow(FakeApi([view(0, "failed", "swap", 3.0)]), "r1", shown)  # type: ignore[arg-type]
    assert "0/1" in text(shown)
    assert "sample" not in text(shown)


async def test_a_check_ends_the_watch() -> None:
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise EnvironmentUnfit("vLLM ended")

    api = FakeApi([view(0, "running", "rollout")])
    with pytest.raises(EnvironmentUnfit, match="vLLM ended"):
        await follow(api, "r1", console(), check)  # type: ignore[arg-type]
    assert len(api.asked) == 2


async def test_each_growth_of_the_dead_is_told_once() -> None:
    polls = [[view(1, "running", "rollout", prompts=60, prompts_dead=num)] for num in (0, 1, 1, 3)]
    api = FakeApi(*polls, [view(1, "succeeded", "done", prompts=60, prompts_dead=3)])
    shown = console()
    await follow(api, "run", shown)  # type: ignore[arg-type]
    told = [line for line in text(shown).splitlines() if "dead" in line]
    assert told == [
        "iteration 1: 1 of 60 prompts dead; see `rewardloop dead i1`",
        "iteration 1: 3 of 60 prompts dead; see `rewardloop dead i1`",
    ]
