"""pause, resume, cancel, retry and the list of iterations, and what ends a watch."""

from typing import Any

import pytest
from typer.testing import CliRunner

from rewardloop.cli import control, demo, listing, main
from rewardloop.cli.progress import has_stopped
from rewardloop.errors import InvalidInput, TrainingFailed
from rewardloop.lifecycle import Ask
from tests.unit.cases import for_each

RUN = "01234567-89ab-cdef-0123-456789abcdef"
ITERATION = "11111111-89ab-cdef-0123-456789abcdef"


def view(state: str, index: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "id": ITERATION,
        "run_id": RUN,
        "index": index,
        "state": state,
        "phase": "rollout",
        "wish": None,
        "waits_for": None,
        "error": None,
        **more,
    }


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (view("paused"), "paused in phase rollout"),
        (view("running", wish="pause"), "running in phase rollout; pauses when what is in flight"),
        (view("running", wish="cancel"), "running in phase rollout; stops within seconds"),
        (view("queued", waits_for="its turn"), "queued; waits for its turn"),
        (view("succeeded"), "succeeded"),
    ],
)
async def test_a_command_says_how_the_iteration_stands_then(
    stack: Any, capsys: pytest.CaptureFixture[str], found: dict[str, Any], told: str
) -> None:
    home, api = await stack({("POST", f"/v1/iterations/{ITERATION}/pause"): found})
    await control.ask(home, ITERATION, Ask.PAUSE)
    assert f"iteration 1 of run {RUN}: {told}" in capsys.readouterr().out
    assert [request[:2] for request in api.requests] == [
        ("POST", f"/v1/iterations/{ITERATION}/pause")
    ]


async def test_what_cannot_be_an_iterations_id_is_not_asked_for(stack: Any) -> None:
    home, api = await stack({})
    with pytest.raises(InvalidInput, match="`rewardloop iterations` lists them"):
        await control.ask(home, "../runs", Ask.CANCEL)
    assert api.requests == []


@pytest.mark.parametrize("name", Ask)
def test_each_request_has_its_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    async def note(_: Any, iteration: str, what: Ask) -> None:
        asked.append((iteration, what))

    monkeypatch.setattr(control, "ask", note)
    result = CliRunner().invoke(main.app, [name, ITERATION])
    assert result.exit_code == 0, result.output
    assert asked == [(ITERATION, name)]


async def test_iterations_are_listed_with_what_they_wait_for(
    stack: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting = view("queued", 2, waits_for="iteration 1 of this run, which failed: retry it")
    home, _ = await stack(
        {
            ("GET", f"/v1/runs/{RUN}"): {"id": RUN},
            ("GET", "/v1/iterations"): {"items": [waiting, view("failed", error="no memory")]},
        }
    )
    await listing.list_iterations(home, RUN)
    words = " ".join(capsys.readouterr().out.split())
    assert "failed in phase rollout: no memory" in words
    assert words.index("no memory") < words.index("queued; waits for iteration 1 of this run")


@for_each(
    "states, stopped",
    [
        (["succeeded", "succeeded"], True),
        (["succeeded", "running"], False),
        (["failed", "queued"], True),
        (["cancelled", "queued"], True),
        (["succeeded", "failed", "queued"], True),
        (["failed", "running"], False),
        (["paused", "queued"], False),
        (["queued", "cancelled"], False),
        ([], True),
    ],
)
def test_a_watch_ends_when_nothing_goes_on_by_itself(states: list[str], stopped: bool) -> None:
    assert has_stopped([view(state, index) for index, state in enumerate(states)]) is stopped


def test_a_demo_that_was_cancelled_has_not_succeeded() -> None:
    demo.require_succeeded([view("succeeded")])
    with pytest.raises(TrainingFailed, match="iteration 1 was cancelled"):
        demo.require_succeeded([view("cancelled"), view("queued", 2)])
    with pytest.raises(TrainingFailed, match="no memory"):
        demo.require_succeeded([view("failed", error="no memory")])
