"""The commands, and how their errors look."""

import json
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from rewardloop.cli import demo, doctor, main, remote
from rewardloop.config import parse_run_config
from rewardloop.embedded.home import Addresses, Home
from rewardloop.embedded.process import free_port
from rewardloop.errors import BrokenFile, Conflict, InvalidInput, NotFound

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
runner = CliRunner()
DSN = "postgresql://rewardloop:secret@127.0.0.1:5432/rewardloop"


@pytest.fixture
def stack(tmp_path: Path) -> Home:
    """A home that looks like a running stack's."""
    home = Home(tmp_path / "home")
    home.create()
    nobody = "http://127.0.0.1:9"
    home.remember(Addresses(nobody, nobody, nobody, DSN, "redis://x"))
    return home


def with_api(home: Home, url: str) -> Home:
    home.remember(Addresses(url, url, url, DSN, "redis://x"))
    return home


def console_script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    """What `rewardloop ARGUMENTS` ends with: exit code, stdout, stderr."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(sys, "argv", ["rewardloop", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert isinstance(ended.value.code, int)
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


COMMANDS = [
    *("demo", "up", "import", "start", "runs", "models", "watch", "export"),
    *("dsn", "doctor", "migrate"),
]


def test_help_names_every_command() -> None:
    result = runner.invoke(main.app, ["--help"])
    assert result.exit_code == 0
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", result.output)


@pytest.mark.parametrize("command", ["demo", "up", "import", "start", "watch", "export", "doctor"])
def test_each_command_has_help_and_a_home(command: str) -> None:
    result = runner.invoke(main.app, [command, "--help"])
    assert result.exit_code == 0
    assert "--home" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["demo", "--prompts", "1"],
        ["demo", "--iterations", "0"],
        ["up", "--port", "70000"],
        ["start", "--iterations", "0"],
        ["import", "x", "--format", "parquet"],
        ["export", "run"],
        ["nothing"],
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    assert runner.invoke(main.app, arguments).exit_code == 2


def test_dsn_prints_the_address_alone(stack: Home) -> None:
    result = runner.invoke(main.app, ["dsn", "--home", str(stack.folder)])
    assert (result.exit_code, result.output) == (0, f"{DSN}\n")


def test_the_home_may_come_from_the_environment(
    stack: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REWARDLOOP_HOME", str(stack.folder))
    assert runner.invoke(main.app, ["dsn"]).output == f"{DSN}\n"


@pytest.mark.parametrize(
    "arguments", [["dsn"], ["start"], ["watch"], ["export", "r", "-o", "pairs.jsonl"]]
)
def test_without_a_stack_the_error_says_how_to_start_one(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = console_script(monkeypatch, capsys, *arguments, "--home", tmp_path)
    assert (code, out) == (1, "")
    assert err.startswith("error not-found: ")
    assert re.search(r"rewardloop\s+up\s+--home", err)
    assert "Traceback" not in err


def test_an_error_is_one_line_however_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / ("x" * 100) / "[red]y"
    _, _, err = console_script(monkeypatch, capsys, "dsn", "--home", home)
    assert len(err.splitlines()) == 1
    assert f"{home} holds no stack" in err


def test_what_an_error_carries_for_programs_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A thousand line numbers would push the message off the screen."""

    def fail(_: Home) -> int:
        raise BrokenFile("many lines are broken", lines=list(range(1000)))

    monkeypatch.setattr(doctor, "run", fail)
    code, _, err = console_script(monkeypatch, capsys, "doctor")
    assert (code, err) == (1, "error broken-file: many lines are broken\n")


def test_an_interrupt_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: Home) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "run", interrupt)
    assert console_script(monkeypatch, capsys, "doctor")[0] == 130


def test_success_ends_with_zero(
    stack: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = console_script(monkeypatch, capsys, "dsn", "--home", stack.folder)
    assert (code, out, err) == (0, f"{DSN}\n", "")


def test_migrate_names_what_the_environment_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("REWARDLOOP_DATABASE_URL", raising=False)
    code, _, err = console_script(monkeypatch, capsys, "migrate")
    assert code == 1
    assert "REWARDLOOP_DATABASE_URL" in err


def test_migrate_without_a_database_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {
        "DATABASE_URL": f"postgresql+psycopg://u:p@127.0.0.1:{free_port()}/d",
        "BROKER_URL": "redis://x",
        "API_KEY": "a" * 16,
        "ADMIN_KEY": "b" * 16,
        "CHECKPOINT_ROOT": "/x",
    }.items():
        monkeypatch.setenv(f"REWARDLOOP_{name}", value)
    code, _, err = console_script(monkeypatch, capsys, "migrate")
    assert code == 1
    assert err.startswith("error upstream-unavailable: the database does not answer")
    assert "Traceback" not in err


def test_a_running_home_is_not_started_twice(stack: Home) -> None:
    with stack.locked():
        result = runner.invoke(main.app, ["demo", "--home", str(stack.folder)])
    assert isinstance(result.exception, Conflict)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("sampling: [", ":1: '[' is not closed"),
        ("seed: 1\nseed: 2", ":2: the key 'seed' is given twice, here and in line 1"),
        ("", "is empty"),
        ("- sampling", "must hold a mapping"),
        ("just words", "must hold a mapping"),
    ],
)
def test_a_broken_config_is_refused_before_anything_is_sent(
    stack: Home, tmp_path: Path, content: str, told: str
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(content)
    result = runner.invoke(main.app, ["start", str(path), "--home", str(stack.folder)])
    assert isinstance(result.exception, InvalidInput)
    assert str(path) in result.exception.message
    assert told in result.exception.message


def test_a_config_that_cannot_be_read_is_refused(stack: Home, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.yaml"):
        result = runner.invoke(main.app, ["start", str(path), "--home", str(stack.folder)])
        assert isinstance(result.exception, InvalidInput)
        assert "cannot be read" in result.exception.message


def test_yaml_and_json_configs_are_read(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.write_text("sampling:\n  top_p: 0.8  # less\n")
    assert remote.read_config(path) == {"sampling": {"top_p": 0.8}}
    path.write_text('{"seed": 3}')
    assert remote.read_config(path) == {"seed": 3}
    assert remote.read_config(None) == {}


def test_a_config_cannot_run_code(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("name: !!python/object/apply:os.getcwd []")
    with pytest.raises(InvalidInput):
        remote.read_config(path)


class FakeApi:
    """Answers by method and path."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.requests: list[tuple[str, str, Any]] = []

    async def __call__(self, request: web.Request) -> web.Response:
        sends = request.can_read_body
        body = await request.json() if sends else dict(request.query)
        path = request.path_qs if sends else request.path
        self.requests.append((request.method, path, body))
        return web.json_response(self.answers[request.path.rpartition("/")[2]])


def made_run(**config: Any) -> dict[str, Any]:
    """What the API answers to a new run."""
    whole = parse_run_config(config).model_dump(mode="json")
    return {"id": "r1", "base_version": "base", "config": whole}


async def test_a_bare_start_says_what_it_begins(
    stack: Home, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    api = FakeApi(runs=made_run(bootstrap={}, prompts={"num_per_iteration": 4000}))
    await remote.start(with_api(stack, await serve(api)), None, None, 1)
    told = capsys.readouterr()
    assert told.out == "r1\n"
    assert "a bootstrap and 1 iteration of 4000 prompts" in told.err
    assert "48,000 judgements in each" in told.err
    assert "No preset and no file was given" in told.err


async def test_start_asks_for_run_and_iterations_at_once_and_prints_the_runs_id(
    stack: Home, serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api = FakeApi(runs=made_run())
    path = tmp_path / "run.yaml"
    path.write_text("seed: 3")
    await remote.start(with_api(stack, await serve(api)), None, path, 2)
    told = capsys.readouterr()
    assert told.out == "r1\n"
    assert told.err == (
        "begins with base; 2 iterations of 32 prompts x 4 answers x 3 judgements: "
        "384 judgements in each\n"
    )
    assert api.requests == [("POST", "/v1/runs?iterations=2", {"seed": 3})]


COUNTS = [
    *("prompts", "pairs", "responses", "responses_expected", "train_steps", "train_steps_total"),
    *("judgements", "judgements_expected", "judgements_scored"),
]
VIEW: dict[str, Any] = {
    "id": "i0",
    "index": 0,
    "state": "failed",
    "phase": "train",
    "new_version": None,
    "error": "CUDA out of memory: " + "a long explanation of what is missing " * 5,
    "counts": dict.fromkeys(COUNTS, 0),
    "base_version": "m0",
    "tokens_per_second": 10.0,
    "seconds": {"rollout": 1.0, "train": None, "swap": None},
}


async def test_watch_prints_each_iteration_as_one_line_of_json(
    stack: Home, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    api = FakeApi(runs={"items": [{"id": "newest"}]}, iterations={"items": [VIEW]})
    await remote.watch(with_api(stack, await serve(api)), None)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [json.loads(line) for line in lines] == [
        {name: VIEW[name] for name in ("index", "state", "new_version", "error")}
    ]
    assert api.requests[-1] == ("GET", "/v1/iterations", {"run_id": "newest", "limit": "200"})


async def test_watch_without_a_run_says_how_to_start_one(stack: Home, serve: Serve) -> None:
    with pytest.raises(NotFound, match="rewardloop start"):
        await remote.watch(with_api(stack, await serve(FakeApi(runs={"items": []}))), None)


def test_the_demos_summary_is_taken_from_the_views() -> None:
    counts = {**VIEW["counts"], "prompts": 2, "responses": 8, "pairs": 1}
    view = {**VIEW, "counts": counts, "new_version": "m1"}
    assert demo.summary("r1", [view], "expected") == {
        "run_id": "r1",
        "judging_mode": "expected",
        "iterations": [
            {
                "index": 0,
                "prompts": 2,
                "responses": 8,
                "judgements": 0,
                "judgements_scored": 0,
                "pairs": 1,
                "base_version": "m0",
                "new_version": "m1",
                "tokens_per_second": 10.0,
                "seconds": {"rollout": 1.0, "train": None, "swap": None},
            }
        ],
    }


def test_a_long_answer_is_shown_short() -> None:
    assert demo._short("a\n\n b [red]") == "a b [red]"
    assert demo._short("x" * 300, 10) == "x" * 10 + "…"


async def test_what_models_write_is_shown_as_it_is(
    stack: Home, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = {"chosen": r"closing \[/b] \\", "rejected": "[red]not red[/red]"}
    scores = {"chosen_score": 4.0, "rejected_score": 1.0}
    pair = {"prompt": [{"role": "user", "content": r"\[/b]"}], **texts, **scores}
    home = with_api(stack, await serve(FakeApi(pairs={"items": [pair]})))
    async with remote.client(home) as api:
        await demo._show_examples(api, "r1")
    assert capsys.readouterr().out.splitlines() == [
        "",
        r"prompt \[/b]",
        r"chosen (4.00) closing \[/b] \\",
        "rejected (1.00) [red]not red[/red]",
    ]


def test_every_argument_and_option_has_help() -> None:
    group = get_command(main.app)
    assert isinstance(group, TyperGroup)
    told = {
        f"{name} {parameter.name}": getattr(parameter, "help", None)
        for name, command in group.commands.items()
        for parameter in command.params
    }
    assert [name for name, help in told.items() if not help] == []
