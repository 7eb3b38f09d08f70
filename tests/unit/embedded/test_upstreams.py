"""The file of `rewardloop up --env-file`."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from rewardloop.cli import demo
from rewardloop.config import Settings
from rewardloop.embedded.home import Home
from rewardloop.embedded.upstreams import NAMES, read_upstreams
from rewardloop.errors import InvalidInput

WHOLE = """\
# a bigger judge
REWARDLOOP_JUDGE_UPSTREAM_URL=http://big-judge:8001
export REWARDLOOP_JUDGE_UPSTREAM_MODEL="the name"
REWARDLOOP_JUDGE_UPSTREAM_KEY=k-${HOME}
REWARDLOOP_EVALUATION_JUDGE_URL=
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "upstreams.env"


def test_values_are_taken_as_they_stand_and_empty_ones_are_unset(file: Path) -> None:
    file.write_text(WHOLE)
    assert read_upstreams(file) == {
        "REWARDLOOP_JUDGE_UPSTREAM_URL": "http://big-judge:8001",
        "REWARDLOOP_JUDGE_UPSTREAM_MODEL": "the name",
        "REWARDLOOP_JUDGE_UPSTREAM_KEY": "k-${HOME}",
    }


def test_every_name_is_a_setting() -> None:
    assert {name.removeprefix("REWARDLOOP_").lower() for name in NAMES} <= set(
        Settings.model_fields
    )


@pytest.mark.parametrize("name", ["REWARDLOOP_API_KEY", "REWARDLOOP_JUDGE_UPSTREAM", "PATH"])
def test_another_name_is_refused_with_those_that_may_stand_there(file: Path, name: str) -> None:
    file.write_text(f"{name}=hunter2\n")
    with pytest.raises(InvalidInput) as caught:
        read_upstreams(file)
    assert f"upstreams.env: {name} cannot stand here" in caught.value.message
    assert all(known in caught.value.message for known in NAMES)
    assert "hunter2" not in caught.value.message


def test_a_name_that_is_given_twice_is_refused_with_both_lines(file: Path) -> None:
    name = "REWARDLOOP_PROMPT_UPSTREAM_URL"
    file.write_text(f"# engines\n{name}=http://a\n\nexport {name}='http://b'\n")
    with pytest.raises(InvalidInput, match=rf":4: {name} is given twice, here and in line 2;"):
        read_upstreams(file)


def test_a_line_that_cannot_be_read_is_refused(file: Path) -> None:
    file.write_text("REWARDLOOP_PROMPT_UPSTREAM_MODEL: chat\n")
    with pytest.raises(InvalidInput, match=r":1: no `NAME=value` line"):
        read_upstreams(file)


def test_a_file_that_cannot_be_read_is_named(file: Path, tmp_path: Path) -> None:
    for path in (file, tmp_path):
        with pytest.raises(InvalidInput, match=f"{path} cannot be read"):
            read_upstreams(path)
    file.write_bytes(b"REWARDLOOP_JUDGE_UPSTREAM_URL=\xff")
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_upstreams(file)


def test_a_foreign_judging_engine_needs_a_key_of_its_own(file: Path) -> None:
    """Without one the judge sends the stack's own."""
    file.write_text("REWARDLOOP_JUDGE_UPSTREAM_URL=http://elsewhere\n")
    with pytest.raises(InvalidInput, match="write REWARDLOOP_JUDGE_UPSTREAM_KEY=none"):
        read_upstreams(file)


def test_a_prompt_model_needs_no_key(file: Path) -> None:
    file.write_text("REWARDLOOP_PROMPT_UPSTREAM_URL=http://elsewhere\n")
    assert read_upstreams(file) == {"REWARDLOOP_PROMPT_UPSTREAM_URL": "http://elsewhere"}


@pytest.mark.parametrize("engine", ["JUDGE", "PROMPT"])
@pytest.mark.parametrize("part", ["MODEL", "KEY"])
def test_what_means_nothing_alone_is_refused(file: Path, engine: str, part: str) -> None:
    file.write_text(f"REWARDLOOP_{engine}_UPSTREAM_{part}=x\n")
    with pytest.raises(InvalidInput, match=f"without REWARDLOOP_{engine}_UPSTREAM_URL"):
        read_upstreams(file)


def test_up_hands_the_files_settings_to_the_stack(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def running(_: Home, **options: Any) -> Any:
        given.append(options["settings"])
        raise ZeroDivisionError

    monkeypatch.setattr(demo, "running", running)
    file.write_text(WHOLE)
    for path, expected in ((file, read_upstreams(file)), (None, {})):
        with pytest.raises(ZeroDivisionError):
            asyncio.run(demo.up(Home(tmp_path / "home"), 8000, path))
        assert given.pop() == expected
