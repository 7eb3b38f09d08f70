"""How programs end on errors that they know."""

import importlib
import sys

import pytest

from rewardloop.config import Settings
from rewardloop.errors import BrokenFile
from rewardloop.process.exits import known_errors_told

SERVICES = [
    "services.trainer.import_base",
    "services.trainer.__main__",
    "services.generator.__main__",
    "services.worker.__main__ rollout",
]


def test_a_known_error_is_its_kind_and_message_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, known_errors_told():
        raise BrokenFile("two [b]lines[/b] are broken", lines=[3, 4])
    captured = capsys.readouterr()
    assert ended.value.code == 1
    assert captured.out == ""
    assert captured.err == "error broken-file: two [b]lines[/b] are broken\n"


def test_an_unknown_error_is_left_alone() -> None:
    with pytest.raises(ZeroDivisionError), known_errors_told():
        raise ZeroDivisionError


def test_an_interrupt_is_told_by_the_status_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, known_errors_told():
        raise KeyboardInterrupt
    assert ended.value.code == 130
    assert capsys.readouterr().err == ""


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without settings."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"REWARDLOOP_{name.upper()}", raising=False)


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("command", SERVICES)
def test_a_service_without_settings_names_them_in_one_line(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, *arguments = command.split()
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(module).main()
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 1
    assert line.startswith("error invalid-input: ")
    assert "REWARDLOOP_DATABASE_URL" in line


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("name", ["api", "judge"])
def test_a_web_service_without_settings_too(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from services.web import serve

    app = importlib.import_module(f"services.{name}.app")
    monkeypatch.setattr(sys, "argv", [name])
    with pytest.raises(SystemExit) as ended:
        serve(app.make_app, "", service=name, default_port=1)
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("error invalid-input: ")
