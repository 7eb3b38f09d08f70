"""Engines from elsewhere that an embedded stack may use, from a file that its user names.

Nothing else reaches the stack's services: what the shell holds may belong to another
deployment, and the stack's own addresses and secrets come from its home.
"""

from pathlib import Path

from dotenv.parser import Binding, parse_stream

from rewardloop.errors import InvalidInput

NAMES = (
    "REWARDLOOP_JUDGE_UPSTREAM_URL",
    "REWARDLOOP_JUDGE_UPSTREAM_MODEL",
    "REWARDLOOP_JUDGE_UPSTREAM_KEY",
    "REWARDLOOP_EVALUATION_JUDGE_URL",
    "REWARDLOOP_PROMPT_UPSTREAM_URL",
    "REWARDLOOP_PROMPT_UPSTREAM_MODEL",
    "REWARDLOOP_PROMPT_UPSTREAM_KEY",
)


def read_upstreams(path: Path) -> dict[str, str]:
    """The settings in a file of `NAME=value` lines; values are taken as they stand, and
    empty ones are unset.

    Raises:
        InvalidInput: the file cannot be read, holds another name or one twice, or lacks one
            that the others need.
    """
    try:
        with path.open(encoding="utf-8") as file:
            lines = list(parse_stream(file))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}; name a text file") from error
    found = _each_once(path, lines)
    for name in found:
        if name not in NAMES:
            raise InvalidInput(f"{path}: {name} cannot stand here; these can: {', '.join(NAMES)}")
    settings = {name: value for name, value in found.items() if value}
    _check_complete(path, settings)
    return settings


def _each_once(path: Path, lines: list[Binding]) -> dict[str, str | None]:
    """python-dotenv itself passes over a line that it cannot read, and takes the last value of
    a name."""
    found: dict[str, str | None] = {}
    at: dict[str, int] = {}
    for line in lines:
        number, key = _number(line), line.key
        if line.error:
            raise InvalidInput(f"{path}:{number}: no `NAME=value` line")
        if key in at:
            raise InvalidInput(
                f"{path}:{number}: {key} is given twice, here and in line {at[key]}; "
                "keep one of them"
            )
        if key is not None:
            found[key], at[key] = line.value, number
    return found


def _number(line: Binding) -> int:
    """python-dotenv counts blank lines to the line behind them."""
    text = line.original.string
    return line.original.line + text[: len(text) - len(text.lstrip())].count("\n")


def _check_complete(path: Path, settings: dict[str, str]) -> None:
    for engine in ("JUDGE", "PROMPT"):
        url, *others = (f"REWARDLOOP_{engine}_UPSTREAM_{part}" for part in ("URL", "MODEL", "KEY"))
        without = [name for name in others if name in settings and url not in settings]
        if without:
            raise InvalidInput(f"{path}: {without[0]} says nothing without {url}; add it")
    url, key = "REWARDLOOP_JUDGE_UPSTREAM_URL", "REWARDLOOP_JUDGE_UPSTREAM_KEY"
    if url in settings and key not in settings:
        raise InvalidInput(
            f"{path}: {url} needs {key}, else the judge would send that engine this stack's own "
            f"key; where the engine asks for none, write {key}=none"
        )
