"""What the doctor finds."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rewardloop.cli import doctor, main
from rewardloop.embedded.home import Home

runner = CliRunner()


def doctor_says(home: Path) -> tuple[int, dict[str, str]]:
    """Exit code, and each check's line by its name."""
    result = runner.invoke(main.app, ["doctor", "--home", str(home)])
    marks = re.findall(r"^ *(ok|wrong) ([^:\n]+)", result.output, re.MULTILINE)
    assert [name for _, name in marks] == list(doctor.CHECKS)
    return result.exit_code, {name: mark for mark, name in marks}


def test_the_doctor_really_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "NEEDED_DISK_BYTES", 1)
    monkeypatch.setattr(doctor, "NEEDED_MEMORY_BYTES", 1)
    code, marks = doctor_says(tmp_path / "not" / "yet" / "made")
    wrong = [name for name, mark in marks.items() if mark == "wrong"]
    assert code == len(wrong)
    for name in ("platform", "home is writable", "disk", "memory"):
        assert marks[name] == "ok"
    assert not (tmp_path / "not").exists()


def test_the_doctor_sees_a_home_that_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for home in (file, file / "below"):
        assert doctor_says(home)[1]["home is writable"] == "wrong"
        told = doctor.CHECKS["home is writable"](Home(home))
        assert told == f"{file} is a file, not a folder; give another --home"


@pytest.mark.parametrize(
    ("name", "limit"), [("disk", "NEEDED_DISK_BYTES"), ("memory", "NEEDED_MEMORY_BYTES")]
)
def test_the_doctor_finds_what_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, limit: str
) -> None:
    before, _ = doctor_says(tmp_path)
    told_before = doctor.CHECKS[name](Home(tmp_path))
    monkeypatch.setattr(doctor, limit, 2**60)
    code, marks = doctor_says(tmp_path)
    assert marks[name] == "wrong"
    assert code == before + (told_before is None)
    told = doctor.CHECKS[name](Home(tmp_path))
    assert told is not None
    assert re.search(r"\d GiB", told)


def test_the_doctor_names_packages_that_are_missing_or_harmful(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    monkeypatch.setattr(doctor, "_installed", lambda name: name in ("torch", "torchaudio"))
    missing = doctor.CHECKS["packages"](home)
    harmful = doctor.CHECKS["no packages that break TRL"](home)
    assert missing == "not installed: trl, celery, fastapi, vllm; run `make setup`"
    assert harmful == "torchaudio break TRL here; run `pip uninstall torchaudio`"
    monkeypatch.setattr(doctor, "_installed", lambda name: name not in ("vllm", *doctor.HARMFUL))
    assert doctor.CHECKS["packages"](home) is None
    assert doctor.CHECKS["no packages that break TRL"](home) is None


def test_a_home_with_brackets_is_told_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "[red]"
    file.touch()
    output = runner.invoke(main.app, ["doctor", "--home", str(file)]).output
    assert "[red]isafile" in "".join(output.split())  # wherever its lines break
