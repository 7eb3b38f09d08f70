"""Importing files: what is sent, and what is told of the rest."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rewardloop.cli import importing, main
from rewardloop.cli.terminal import Console
from rewardloop.datasets import Format
from rewardloop.embedded.home import Addresses, Home
from rewardloop.errors import BrokenFile, InvalidInput

PROMPTS = ("POST", "/v1/datasets/mine/prompts")
RANKED = ("POST", "/v1/datasets/mine/ranked")
COMPARE = ("POST", "/v1/datasets/mine/compare")


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "console", Console(width=400))


@pytest.fixture
def three_lines(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "Write."}\nnot json\n{"prompt": "Add."}\n')
    return path


async def test_an_odd_line_is_left_out_by_name_and_the_rest_is_sent(
    stack: Any, three_lines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, api = await stack({PROMPTS: {"added": 1, "known": 1}})
    await importing.import_file(home, three_lines, "mine", Format.AUTO, False, "en")
    ((_, _, body),) = api.requests
    assert [row["messages"][0]["content"] for row in body["prompts"]] == ["Write.", "Add."]
    told = capsys.readouterr().out.splitlines()
    assert "3 rows, read as trl (2)" in told
    assert any(line.startswith("  1 broken_line (first at line 2: ") for line in told)
    assert "mine: 1 prompt added, 1 known already" in told


async def test_strict_refuses_a_file_with_an_odd_line(stack: Any, three_lines: Path) -> None:
    home, api = await stack({})
    with pytest.raises(BrokenFile):
        await importing.import_file(home, three_lines, "mine", Format.AUTO, True, "en")
    with pytest.raises(BrokenFile):
        await importing.import_ranked(home, three_lines, "mine", Format.AUTO, True, "en")
    assert api.requests == []


async def test_what_the_server_did_with_known_prompts_is_told(
    stack: Any, three_lines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = {
        "added": 0,
        "known": 2,
        "references_added": 3,
        "references_kept": 4,
        "left_out": {"empty": {"count": 5, "first": "prompts.7", "detail": ""}},
        "elsewhere": {"evaluation": 6},
        "held_out": 8,
    }
    home, _ = await stack({PROMPTS: answer})
    await importing.import_file(home, three_lines, "mine", Format.AUTO, False, "en")
    told = capsys.readouterr().out
    assert "3 known prompts got a reference" in told
    assert "4 prompts keep the reference that they have" in told
    assert "  5 empty (first at prompts.7)" in told
    assert "6 in 'evaluation'" in told
    assert "8 questions are held out" in told


@pytest.fixture
def rankings(tmp_path: Path) -> Path:
    good = {"prompt": "Q", "responses": [{"text": "a", "rank": 1}, {"text": "b", "rank": 0}]}
    alone = {"prompt": "R", "responses": [{"text": "a", "rank": 0}]}
    path = tmp_path / "ranked.jsonl"
    path.write_text(f"{json.dumps(good)}\n{json.dumps(alone)}\n")
    return path


async def test_ranked_responses_are_sent_and_what_was_left_out_is_told(
    stack: Any, rankings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = {
        "added": 0,
        "known": 1,
        "extended": 1,
        "responses_added": 2,
        "unplaced": {"order_unknown": 3},
    }
    home, api = await stack({RANKED: answer})
    await importing.import_ranked(home, rankings, "mine", Format.AUTO, False, "en")
    ((_, _, body),) = api.requests
    (sent,) = body["prompts"]
    assert sent["messages"] == [{"role": "user", "content": "Q"}]
    assert sent["reference"] == "b"
    assert sent["responses"] == [{"text": "b", "rank": 0}, {"text": "a", "rank": 1}]
    told = capsys.readouterr().out
    assert "  1 fewer_than_two (first at line 2)" in told
    assert "of which 1 got 2 more responses" in told
    assert "3 responses not added to known rankings (order_unknown)" in told


async def test_inspect_shows_both_imports_and_stores_nothing(
    stack: Any, rankings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = {
        "unit": "tokens",
        "version": "base",
        "context": 700,
        "lengths": [[200, [900, 3]], [1, []]],
        "known": 1,
        "elsewhere": {"validation": 1},
        "held_out": 0,
    }
    home, api = await stack({COMPARE: answer})
    await importing.inspect(home, rankings, "mine", Format.AUTO, False, "en", False)
    (((_, path, body)),) = api.requests
    assert path == "/v1/datasets/mine/compare"
    assert body["prompts"][0] == {
        "messages": [{"role": "user", "content": "Q"}],
        "answers": ["b", "a"],
    }
    told = capsys.readouterr().out
    assert "import-ranked would take 1 prompt with 2 answers" in told
    assert "prompt length in tokens of base: p50 1, p90 200, p99 200, max 200" in told
    assert "1 prompt leaves no room for 512 tokens of answer" in told
    assert "1 answer with its prompt exceeds 1024 tokens" in told
    assert "1 prompt is in 'mine' already" in told
    assert "1 in 'validation'" in told
    assert "  -> rank 1: a" in told


def test_inspect_without_a_stack_counts_characters_and_says_so(
    tmp_path: Path, rankings: Path
) -> None:
    result = CliRunner().invoke(
        main.app, ["inspect", str(rankings), "--json", "--home", str(tmp_path / "none")]
    )
    assert result.exit_code == 0
    assert "note: no stack was asked" in result.stderr
    found = json.loads(result.stdout)
    assert found["stored"] is None
    assert found["limits"] is None
    assert found["lengths"]["unit"] == "characters"
    assert found["account"]["num_rows"] == 2
    assert found["ranked"]["num_responses"] == 2
    assert found["ranked"]["left_out"]["fewer_than_two"]["first_line"] == 2


async def test_a_stack_that_is_down_is_not_waited_for_to_inspect(
    rankings: Path, stack: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    home, _ = await stack({})
    nobody = "http://127.0.0.1:9"
    home.remember(Addresses(nobody, nobody, nobody, "postgresql://x", "redis://x"))
    await importing.inspect(home, rankings, "mine", Format.AUTO, False, "en", False)
    assert "no stack was asked" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("mark", "told"),
    [
        ({"deleted": True}, r"2 prompt_deleted; `rewardloop inspect` shows where\.$"),
        ({"lang": "de"}, r"2 prompt_other_language; .* names another language than 'en'\.$"),
    ],
)
async def test_a_file_of_which_nothing_is_left_says_why(
    tmp_path: Path, stack: Any, mark: dict[str, Any], told: str
) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": p, **mark}) + "\n" for p in "ab"))
    home, _ = await stack({})
    with pytest.raises(InvalidInput, match=told):
        await importing.import_file(home, path, "mine", Format.AUTO, False, "en")


async def test_a_text_of_the_file_cannot_steer_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"prompt": "a\x1b[2Jb\x9b", "m\x1bd": "x"}))
    await importing.inspect(Home(tmp_path), path, "mine", Format.AUTO, False, "en", as_json=False)
    told = capsys.readouterr().out
    assert "user: a\\x1b[2Jb\\x9b" in told
    assert "m\\x1bd (1)" in told
    assert not {"\x1b", "\x9b"} & set(told)
