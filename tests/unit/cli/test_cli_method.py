"""The commands of the whole method, against an API that answers as it is told."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from typer.testing import CliRunner

from rewardloop.cli import main, remote
from rewardloop.config import RunConfig
from rewardloop.errors import EvaluationFailed, NotFound
from rewardloop.method.conformance import Found, conformance

Answers = dict[tuple[str, str], Any]
Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
runner = CliRunner()


RUNS = {("GET", "/v1/runs"): {"items": [{"id": "r1"}]}}


@pytest.mark.parametrize(
    "command", ["import-ranked", "evaluate", "export-answers", "report", "conformance", "policies"]
)
def test_each_command_has_help_and_a_home(command: str) -> None:
    result = runner.invoke(main.app, [command, "--help"])
    assert result.exit_code == 0
    assert "--home" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "a"],
        ["evaluate", "a", "b", "--prompts", "0"],
        ["evaluate", "a", "b", "--mode", "odd"],
        ["export-answers", "a"],
        ["policies", "--min-margin", "6"],
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    assert runner.invoke(main.app, arguments).exit_code == 2


async def test_a_preset_lies_under_the_files_keys(stack: Any, tmp_path: Path) -> None:
    made = {"id": "r1", "base_version": "base", "config": RunConfig().model_dump(mode="json")}
    home, api = await stack({("POST", "/v1/runs"): made})
    path = tmp_path / "mine.yaml"
    path.write_text("training: {beta: 0.2}")
    await remote.start(home, "demo", path, 1)
    sent = api.requests[0][2]
    assert sent["training"]["beta"] == 0.2
    assert sent["training"]["batch_size"] == 4
    assert sent["name"] == "demo"


async def test_what_is_left_out_of_training_is_told_beside_the_runs_id(
    stack: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    config = RunConfig().model_dump(mode="json")
    made = {"id": "r1", "base_version": "base", "config": config, "notes": ["4 are not [trained]"]}
    home, _ = await stack({("POST", "/v1/runs"): made})
    await remote.start(home, "demo", None, 1)
    captured = capsys.readouterr()
    assert captured.out == "r1\n"
    assert "note: 4 are not [trained]\n" in captured.err


async def test_a_preset_that_does_not_exist_starts_nothing(stack: Any) -> None:
    home, api = await stack({})
    with pytest.raises(NotFound, match="there is no preset 'papre'"):
        await remote.start(home, "papre", None, 1)
    assert api.requests == []


def evaluation(state: str, **found: Any) -> dict[str, Any]:
    return {"id": "e1", "state": state, "result": None, "error": None, **found}


async def test_an_evaluation_is_waited_for(stack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "EVALUATION_POLL_SECONDS", 0.0)
    done = evaluation("succeeded", result={"num_wins": 3})
    home, api = await stack(
        {
            ("POST", "/v1/evaluations"): evaluation("queued"),
            ("GET", "/v1/evaluations/e1"): [evaluation("running"), done],
        }
    )
    assert await remote.evaluate(home, "a", "b", {"num_prompts": 4}) == done
    assert api.requests[0][2] == {
        "version_a": "a",
        "version_b": "b",
        "config": {"num_prompts": 4},
    }
    assert len(api.requests) == 3


@pytest.mark.parametrize(
    ("found", "raised"),
    [
        (evaluation("succeeded", result={"num_wins": 3}), None),
        (evaluation("failed", error="no"), EvaluationFailed),
    ],
)
def test_evaluate_prints_the_result_or_fails(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, Any], raised: type[Exception] | None
) -> None:
    asked: list[Any] = []

    async def evaluate(*arguments: Any) -> dict[str, Any]:
        asked.extend(arguments)
        return found

    monkeypatch.setattr(remote, "evaluate", evaluate)
    result = runner.invoke(main.app, ["evaluate", "a", "b", "--prompts", "5", "--home", "h"])
    assert asked[1:3] == ["a", "b"]
    assert asked[3]["num_prompts"] == 5
    if raised is None:
        assert json.loads(result.output) == {"num_wins": 3}
    else:
        assert isinstance(result.exception, raised)


async def test_answers_are_exported_for_alpaca_eval(stack: Any, tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Q"}]
    items = [{"messages": messages, "answer": "A", "sampling": {}}]
    home, api = await stack({("GET", "/v1/models/m2/answers"): {"items": items}})
    await remote.export_answers(home, "m2", "held", tmp_path / "out.json")
    written = json.loads((tmp_path / "out.json").read_text())
    assert written == [{"dataset": "held", "instruction": "Q", "output": "A", "generator": "m2"}]
    assert api.requests[0][2] == {"dataset": "held"}


async def test_the_report_of_the_newest_run_is_written(stack: Any, tmp_path: Path) -> None:
    data = {
        "run": {
            "id": "r1",
            "name": "my run",
            "config": RunConfig().model_dump(mode="json"),
            "config_sha256": "0" * 64,
            "software": {},
            "base_version": "m0",
            "created_at": "2026-01-01T00:00:00+00:00",
        },
        "conformance": [],
        "versions": [],
        "assessments": [],
        "iterations": [],
        "evaluations": [],
    }
    home, _ = await stack({**RUNS, ("GET", "/v1/runs/r1/report"): data})
    await remote.report(home, None, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "my run" in page


async def test_conformance_counts_what_deviates(
    stack: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = conformance(RunConfig(), Found())
    home, _ = await stack({**RUNS, ("GET", "/v1/runs/r1/conformance"): {"items": rows}})
    await remote.show_conformance(home, None)
    told = capsys.readouterr().out
    verdicts = [row["verdict"] for row in rows]
    counted = verdicts.count("same") + verdicts.count("deviates")
    assert f"{verdicts.count('deviates')} of {counted} values deviate; " in told
    for verdict, words in (
        ("does not apply", "in parts that this run leaves out"),
        ("not run", "not run"),
        ("not given", "not given by the paper"),
    ):
        assert verdicts.count(verdict) > 0
        assert f"; {words}: {verdicts.count(verdict)}" in told


async def test_every_policy_is_compared_on_stored_scores(
    stack: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {
        "num_pairs": 2,
        "mean_margin": 1.5,
        "mean_chosen_length": None,
        "mean_rejected_length": 80.0,
        "unpaired": {"tied": 3},
    }
    views = [
        {"id": "i0", "index": 0, "kind": "bootstrap", "counts": {"responses": 0}},
        {"id": "i1", "index": 1, "kind": "improve", "counts": {"responses": 8}},
        {"id": "i2", "index": 2, "kind": "improve", "counts": {"responses": 0}},
    ]
    home, api = await stack(
        {
            **RUNS,
            ("GET", "/v1/iterations"): {"items": views},
            ("POST", "/v1/iterations/i1/pairing"): found,
        }
    )
    await remote.compare_policies(home, None, 0.5)
    asked = [body for method, _, body in api.requests if method == "POST"]
    assert [body["policy"]["kind"] for body in asked] == [p["kind"] for p in remote.POLICIES]
    assert {body["min_margin"] for body in asked} == {0.5}
    told = capsys.readouterr().out
    assert "length_control, rho 0.1" in told
    assert "several, max_pairs_per_prompt 3" in told
    assert "3 tied" in told


async def test_policies_without_a_score_say_so(stack: Any) -> None:
    views = [{"id": "i1", "index": 1, "kind": "improve", "counts": {"responses": 0}}]
    home, _ = await stack({**RUNS, ("GET", "/v1/iterations"): {"items": views}})
    with pytest.raises(NotFound, match="run r1 has no scored responses yet"):
        await remote.compare_policies(home, None, 0.0)


async def test_without_a_run_the_error_says_how_to_start_one(stack: Any) -> None:
    home, _ = await stack({("GET", "/v1/runs"): {"items": []}})
    with pytest.raises(NotFound, match="rewardloop start"):
        await remote.show_conformance(home, None)
