"""Texts of others are shown in a terminal, and never obeyed: through every command that prints
them."""

import io
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from rewardloop.cli import (
    control,
    dead,
    demo,
    doctor,
    importing,
    keys,
    listing,
    main,
    progress,
    remote,
)
from rewardloop.cli.terminal import Console, shown_json
from rewardloop.datasets import Format
from rewardloop.embedded.home import Home
from rewardloop.errors import InvalidInput
from rewardloop.lifecycle import Ask
from rewardloop.process.exits import known_errors_told

CSI, OSC8, BEL, CR = "\x1b[2J\x1b[31m", "\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\", "\a", "\r"
HOSTILE = f"a{CSI}{OSC8}{BEL}{CR}\u202egnp\u2066\x9b31m\x7f\u200ez"
RUN = "01234567-89ab-cdef-0123-456789abcdef"
MOMENT = "2026-01-02T03:04:05Z"


def assert_safe(shown: str) -> None:
    """Nothing steers, and the escape and the override are seen."""
    steering = {c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs")} - set("\n\t")
    assert not steering, shown
    assert "\\x1b" in shown or "\\u001b" in shown, shown
    assert "\\u202e" in shown, shown


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (control, dead, demo, doctor, importing, keys, listing, remote):
        monkeypatch.setattr(module, "console", Console(width=1000))


def view(**changed: Any) -> dict[str, Any]:
    names = ("responses", "judgements", "train_steps")
    counts = dict.fromkeys([*names, "responses_expected", "judgements_expected"], 1)
    return {
        "id": RUN,
        "index": 1,
        "kind": "improve",
        "state": "succeeded",
        "phase": HOSTILE,
        "new_version": HOSTILE,
        "error": HOSTILE,
        "tokens_per_second": 1.0,
        "seconds": {"swap": 1.0},
        "counts": {**counts, "train_steps_total": 0},
        **changed,
    }


ITERATIONS = ("GET", "/v1/iterations")
THE_RUN = {("GET", f"/v1/runs/{RUN}"): {"id": RUN}, ITERATIONS: {"items": [view()]}}


async def test_runs(stack: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = {"id": RUN, "name": HOSTILE, "created_at": MOMENT}
    items = {"items": [view(state=HOSTILE)]}
    home, _ = await stack({("GET", "/v1/runs"): {"items": [run]}, ITERATIONS: items})
    await listing.list_runs(home)
    assert_safe(capsys.readouterr().out)


async def test_models(stack: Any, capsys: pytest.CaptureFixture[str]) -> None:
    model = {"id": HOSTILE, "kind": HOSTILE, "parent": HOSTILE, "serving": 1, "created_at": MOMENT}
    home, _ = await stack({("GET", "/v1/models"): {"items": [model]}})
    await listing.list_models(home)
    assert_safe(capsys.readouterr().out)


async def test_keys(stack: Any, capsys: pytest.CaptureFixture[str]) -> None:
    moments = {"created_at": MOMENT, "last_used_at": None, "revoked_at": None}
    key = {"id": RUN, "name": HOSTILE, "scopes": [HOSTILE], "key": HOSTILE, **moments}
    listed = {"items": [key]}
    home, _ = await stack(
        {
            ("GET", "/v1/keys"): listed,
            ("POST", "/v1/keys"): key,
            ("DELETE", f"/v1/keys/{RUN}"): key,
        }
    )
    await keys.list_all(home)
    assert_safe(capsys.readouterr().out)
    await keys.create(home, HOSTILE, [])
    for stream in capsys.readouterr():
        assert_safe(stream)
    await keys.revoke(home, HOSTILE)
    assert_safe(capsys.readouterr().out)


async def test_iterations_and_what_is_asked_of_them(
    stack: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    stands = view(state=HOSTILE, waits_for=HOSTILE, wish=None, run_id=HOSTILE)
    home, _ = await stack(
        {
            **THE_RUN,
            ITERATIONS: {"items": [stands]},
            ("POST", f"/v1/iterations/{RUN}/pause"): stands,
        }
    )
    await listing.list_iterations(home, RUN)
    assert_safe(capsys.readouterr().out)
    await control.ask(home, RUN, Ask.PAUSE)
    assert_safe(capsys.readouterr().out)


async def test_dead_prompts(stack: Any, capsys: pytest.CaptureFixture[str]) -> None:
    prompt = {"prompt_id": 1, "num_attempts": 3, "num_lost_leases": 0, "error": HOSTILE}
    prompt["messages"] = [{"role": "user", "content": HOSTILE}]
    other = {"item": HOSTILE, "num_attempts": 3, "error": HOSTILE}
    page = {"items": [prompt], "next_after": None, "ranked_responses": [other]}
    home, _ = await stack({("GET", f"/v1/iterations/{RUN}/dead-prompts"): page})
    await dead.list_dead(home, RUN)
    assert_safe(capsys.readouterr().out)


async def test_start(stack: Any, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = {"num_per_iteration": 1, "num_samples": 1, "num_judgements": 1}
    config = {**dict.fromkeys(("prompts", "sampling", "judging"), numbers), "bootstrap": None}
    run = {"id": HOSTILE, "config": config, "base_version": HOSTILE, "notes": [HOSTILE]}
    home, _ = await stack({("POST", "/v1/runs"): run})
    await remote.start(home, None, None, 1)
    for stream in capsys.readouterr():
        assert_safe(stream)


@pytest.mark.parametrize("terminal", [False, True])
async def test_watch(
    stack: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,
) -> None:
    console = Console(width=1000, force_terminal=terminal, no_color=True)
    monkeypatch.setattr(remote, "console", console)
    home, _ = await stack(THE_RUN)
    await remote.watch(home, RUN)
    shown = capsys.readouterr().out
    last = shown.splitlines()[-1].removeprefix("\x1b[?25h")  # rich shows the cursor again
    assert r"iteration 1: a\x1b[2J" in shown
    assert "\x1b]8" not in shown
    assert_safe(last)
    assert json.loads(last)["error"] == HOSTILE


async def test_policies_and_conformance(stack: Any, capsys: pytest.CaptureFixture[str]) -> None:
    means = dict.fromkeys(("mean_margin", "mean_chosen_length", "mean_rejected_length"))
    found = {"num_pairs": 1, "unpaired": {HOSTILE: 1}, **means}
    row = {"verdict": HOSTILE, "what": HOSTILE, "paper": HOSTILE, "ran": HOSTILE}
    home, _ = await stack(
        {
            **THE_RUN,
            ("POST", f"/v1/iterations/{RUN}/pairing"): found,
            ("GET", f"/v1/runs/{RUN}/conformance"): {"items": [row]},
        }
    )
    await remote.compare_policies(home, RUN, 0.0)
    assert_safe(capsys.readouterr().out)
    await remote.show_conformance(home, RUN)
    assert_safe(capsys.readouterr().out)


async def test_evaluate(
    stack: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(width=1000, force_terminal=True, no_color=True)
    monkeypatch.setattr(remote, "console", console)
    done = {"id": RUN, "state": "succeeded", "error": None, "result": {HOSTILE: HOSTILE}}
    queued = {**done, "state": "queued"}
    monkeypatch.setattr(remote, "EVALUATION_POLL_SECONDS", 0.2)
    home, _ = await stack(
        {
            ("POST", "/v1/evaluations"): done,
            ("GET", f"/v1/evaluations/{RUN}"): [queued, done],
        }
    )
    found = await remote.evaluate(home, HOSTILE, HOSTILE, {})
    shown = capsys.readouterr().out
    assert "a\\x1b[2J" in shown
    assert "\x1b]8" not in shown
    assert "\u202e" not in shown
    assert_safe(shown_json(found["result"]))


async def test_examples_and_scores_of_the_demo(
    stack: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = {"chosen_score": 1.0, "rejected_score": 1.0}
    pair = {"prompt": [{"content": HOSTILE}], "chosen": HOSTILE, "rejected": HOSTILE, **scores}
    home, _ = await stack(
        {
            ("GET", f"/v1/runs/{RUN}/pairs"): {"items": [pair]},
            ("GET", f"/v1/iterations/{RUN}/scores"): {"scores": {HOSTILE: 1}, "unscored": {}},
        }
    )
    async with remote.client(home) as api:
        await demo._show_examples(api, RUN)
        for line in capsys.readouterr().out.splitlines()[1:]:
            assert_safe(line)
        await demo._show_scores(api, view(index=HOSTILE))
    assert_safe(capsys.readouterr().out)


@pytest.mark.parametrize("as_json", [False, True])
async def test_inspect_and_import(
    tmp_path: Path, stack: Any, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"prompt": HOSTILE, HOSTILE: "x"}))
    await importing.inspect(Home(tmp_path), path, "mine", Format.AUTO, False, "en", as_json)
    shown = capsys.readouterr().out
    assert_safe(shown)
    if as_json:
        assert json.loads(shown)["account"]["examples"][0]["messages"][0]["content"] == HOSTILE
    home, _ = await stack(
        {
            ("POST", "/v1/datasets/mine/prompts"): {
                "added": 1,
                "known": 0,
                "left_out": {HOSTILE: {"count": 1, "first": HOSTILE, "detail": HOSTILE}},
                "elsewhere": {HOSTILE: 1},
            }
        }
    )
    await importing.import_file(home, path, "mine", Format.AUTO, False, "en")
    assert_safe(capsys.readouterr().out)


def test_a_texts_line_feed_begins_no_line_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    importing._tell(["column a\n100 rows, read as trl"])
    assert capsys.readouterr().out == "column a\\x0a100 rows, read as trl\n"


def test_doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / HOSTILE.replace("/", "")
    folder.write_text("")
    assert doctor.run(Home(folder)) > 0
    assert_safe(capsys.readouterr().out)


def test_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), known_errors_told():
        raise InvalidInput(HOSTILE)
    assert_safe(capsys.readouterr().err)


def test_an_error_that_nobody_foresaw(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise ZeroDivisionError(HOSTILE)

    monkeypatch.setattr(main, "app", fails)
    with pytest.raises(SystemExit):
        main.main()
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert_safe(shown)


def test_ready_texts_tables_and_bars_are_caught_too() -> None:
    file = io.StringIO()
    console = Console(file=file, width=1000)
    console.print(Text(f"x{HOSTILE}"))
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(Text(HOSTILE), HOSTILE)
    console.print(table)
    with Progress(TextColumn("{task.description}"), console=console) as bars:
        bars.add_task(HOSTILE)
    assert_safe(file.getvalue())


def test_markup_and_emoji_of_a_text_stay_text() -> None:
    file = io.StringIO()
    Console(file=file, force_terminal=True).print("[red]:tada:[/red] [link=http://evil]x[/link]")
    assert file.getvalue() == "[red]:tada:[/red] [link=http://evil]x[/link]\n"


def test_every_console_is_of_this_module() -> None:
    """A bare rich console or `print` of a text would go around it."""
    folder = Path(main.__file__).parent
    for path in folder.glob("*.py"):
        if path.name != "terminal.py":
            assert "rich.console" not in path.read_text(), path.name
    assert isinstance(progress.Console, type)
    assert progress.Console is Console
