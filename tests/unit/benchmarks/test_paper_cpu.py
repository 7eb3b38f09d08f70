"""What `make paper-cpu` says to its user. The run itself is measured, not tested."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import paper_cpu
from rewardloop.config import parse_run_config
from rewardloop.datasets.names import DATASET_NAME


@pytest.fixture(autouse=True)
def no_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole stack with vLLM is nothing for a unit test, not even for one that fails."""

    def running(*_: Any, **__: Any) -> Any:
        raise AssertionError("a stack would have been started")

    monkeypatch.setattr(paper_cpu, "running", running)


def ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[Any, str, str]:
    """Exit code, stdout and stderr; 0 where it returns."""
    monkeypatch.setattr(sys, "argv", ["paper_cpu", *map(str, arguments)])
    code: Any = 0
    try:
        paper_cpu.main()
    except SystemExit as end:
        code = end.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(
    ("option", "content", "told"),
    [
        ("--config", None, "cannot be read"),
        ("--config", "sampling: {temprature: 1}", "sampling.temprature: there is no such key"),
        ("--trees", None, "absent.jsonl"),
        ("--trees", "no json\n", "broken line"),
    ],
)
def test_a_wrong_file_is_told_in_short_before_a_stack_starts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    content: str | None,
    told: str,
) -> None:
    path = tmp_path / "absent.jsonl"
    if content is not None:
        path.write_text(content)
    home = tmp_path / "home"
    code, out, err = ended(monkeypatch, capsys, option, path, "--home", home)
    assert (code, out) == (1, "")
    assert err.startswith("error ")
    assert told in err
    assert not home.exists()


def test_a_number_of_iterations_that_no_run_takes_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = ended(monkeypatch, capsys, "--iterations", 0)
    assert code == 2
    assert "--iterations 0: give 1 to 100" in err


@pytest.mark.parametrize("failed", [False, True])
def test_table_and_last_line_are_printed_of_a_failed_run_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failed: bool
) -> None:
    ends = {"low": 0.125, "high": 0.5, "over": "prompts", "num": 18, "reason": None}
    metrics = dict.fromkeys(paper_cpu.METRICS, 0.25) | dict.fromkeys(paper_cpu.COUNTS, 1021)
    metrics |= {"exact_order": None, "intervals": {"spearman": ends}}
    judge = {"label": "M1", "mode": "free", "purpose": "health", "metrics": metrics}
    views = [{"index": 0, "state": "succeeded", "error": None}]
    if failed:
        views += [{"index": n, "state": "failed", "error": f"why {n}"} for n in (1, 2)]
    report = {
        "run": {"config": {"judging": {"mode": "free"}}},
        **{"assessments": [judge], "evaluations": [], "iterations": views},
    }

    async def chain(*_: Any) -> dict[str, Any]:
        return report

    monkeypatch.setattr(paper_cpu, "chain", chain)
    code, out, err = ended(monkeypatch, capsys)
    table = [" ".join(line.split()) for line in out.splitlines()]
    assert {"pairwise accuracy 0.250", "exact order -", "num pairs needed 1,021"} <= set(table)
    assert table[table.index("spearman 0.250") + 1] == "95 % interval 0.12 to 0.50"
    last = json.loads(out.splitlines()[-1])
    assert last == {"m1_free_parse_rate": 0.25, "judge": {"m1": metrics}}
    assert code == int(failed)
    assert err == ("error training-failed: iteration 1 failed: why 1\n" if failed else "")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("my trees.jsonl", "trees-my-trees"),
        ("trees.jsonl.gz", "trees-trees.jsonl"),
        ("Bäume [1].jsonl", "trees-B-ume--1-"),
        ("x" * 200 + ".jsonl", "trees-" + "x" * 94),
    ],
)
def test_any_files_name_makes_a_datasets_name(file: str, name: str) -> None:
    assert paper_cpu.dataset_of(Path("folder") / file) == name
    assert re.fullmatch(DATASET_NAME, name)


class FakeApi:
    """Knows one run of the given config and states."""

    def __init__(self, config: dict[str, Any], states: list[str]) -> None:
        kinds = ["bootstrap", *["improve"] * (len(states) - 1)]
        self.views = [
            {"index": n, "kind": kind, "state": state}
            for n, (kind, state) in enumerate(zip(kinds, states, strict=True))
        ]
        stored = parse_run_config(config).model_dump(mode="json") | {"base_version": "m0"}
        self.run = {"id": "old", "config": stored}
        self.posted: list[tuple[str, Any, Any]] = []

    async def get(self, path: str, **_: Any) -> Any:
        return {"items": self.views if path == "/v1/iterations" else [self.run]}

    async def post(self, path: str, body: Any, **params: Any) -> Any:
        self.posted.append((path, body, params))
        return {"id": "new"}


CONFIG = {"bootstrap": {}, "name": "chain"}


@pytest.mark.parametrize(
    ("states", "asked"),
    [
        (["succeeded", "succeeded"], [("/v1/runs/old/iterations", {"count": 2}, {})]),
        (["succeeded", "running", "queued", "queued"], []),
        (["succeeded", "failed"], [("/v1/runs", CONFIG, {"iterations": 3})]),
    ],
)
async def test_a_run_is_gone_on_with_and_gets_what_it_lacks(
    states: list[str], asked: list[Any]
) -> None:
    api = FakeApi(CONFIG, states)
    run_id = await paper_cpu._run(api, CONFIG, 3)  # type: ignore[arg-type]
    assert api.posted == asked
    assert run_id == ("new" if "failed" in states else "old")


async def test_another_config_is_another_run() -> None:
    api = FakeApi(CONFIG, ["succeeded", "succeeded"])
    assert await paper_cpu._run(api, {"name": "other"}, 1) == "new"  # type: ignore[arg-type]
