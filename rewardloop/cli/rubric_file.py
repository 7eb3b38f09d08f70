"""A rubric's template from a file beside the config file: read where the user is, sent as text."""

from pathlib import Path
from typing import Any

from rewardloop.errors import InvalidInput


def with_rubric_text(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The config with the text of each `rubric: {file: PATH}` in place of its path.

    A relative path is taken from `folder`, that of the config file.

    Raises:
        InvalidInput: a file cannot be read as text.
    """
    return {key: _resolved(key, value, folder) for key, value in config.items()}


def _resolved(key: str, value: Any, folder: Path) -> Any:
    if not isinstance(value, dict):
        return value
    if key == "rubric" and set(value) == {"file"}:
        return {"template": _text(folder / str(value["file"]))}
    return {name: _resolved(name, inner, folder) for name, inner in value.items()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except OSError as error:
        raise InvalidInput(f"the rubric {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"the rubric {path} is no UTF-8 text: {error}") from error
