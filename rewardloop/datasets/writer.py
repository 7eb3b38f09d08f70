"""Writes preference pairs in TRL's conversational preference format, one a line;
answers as AlpacaEval's model outputs, one JSON array; and plain texts.

A reader never sees half a file: it is written under a hidden name in the same
folder, brought to the disk, and renamed. What stood there before stays until
then.
"""

import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from rewardloop.errors import InvalidInput

_KEPT = ("chosen_score", "rejected_score", "prompt_id", "pair_id")
_MODEL_OUTPUT = ("dataset", "instruction", "output", "generator")


def write_preference_jsonl(rows: Iterable[Mapping[str, Any]], path: Path) -> int:
    """Writes the rows and tells how many there were.

    A row has `prompt` (messages), `chosen` and `rejected` (texts), `chosen_score`,
    `rejected_score`, `prompt_id` and `pair_id`.

    Raises:
        InvalidInput: the file cannot be written; its folder does not exist, say.
        ValueError: a row lacks a key or holds what JSON cannot, such as NaN.
    """
    num_rows = 0
    with _renamed_when_whole(path) as file:
        for num_rows, row in enumerate(rows, start=1):
            file.write(_json(_preference, num_rows, row) + "\n")
    return num_rows


def write_alpaca_eval(rows: Iterable[Mapping[str, Any]], path: Path) -> int:
    """Writes the rows and tells how many there were.

    A row has AlpacaEval's own keys: `dataset`, `instruction`, `output` and `generator` (who
    wrote the output).

    Raises:
        InvalidInput: the file cannot be written; its folder does not exist, say.
        ValueError: a row lacks a key or holds what JSON cannot.
    """
    num_rows = 0
    with _renamed_when_whole(path) as file:
        file.write("[")
        for num_rows, row in enumerate(rows, start=1):
            file.write(",\n " if num_rows > 1 else "\n ")
            file.write(_json(_model_output, num_rows, row))
        file.write("\n]\n")
    return num_rows


def write_text(text: str, path: Path) -> None:
    """Writes one text, whole or not at all.

    Raises:
        InvalidInput: the file cannot be written; its folder does not exist, say.
    """
    with _renamed_when_whole(path) as file:
        file.write(text)


def _preference(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "prompt": list(row["prompt"]),
        "chosen": [{"role": "assistant", "content": row["chosen"]}],
        "rejected": [{"role": "assistant", "content": row["rejected"]}],
        **{key: row[key] for key in _KEPT},
    }


def _model_output(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in _MODEL_OUTPUT}


def _json(
    form: Callable[[Mapping[str, Any]], dict[str, Any]], number: int, row: Mapping[str, Any]
) -> str:
    try:
        record = form(row)
    except KeyError as error:
        raise ValueError(f"row {number} lacks {error}") from None
    return json.dumps(record, ensure_ascii=False, allow_nan=False)


@contextmanager
def _renamed_when_whole(path: Path) -> Iterator[IO[str]]:
    if path.is_dir():
        raise InvalidInput(f"{path} is a folder. Name a file in it.")
    if not path.parent.is_dir():
        raise InvalidInput(f"{path.parent} is not a folder. Make it, or name another file.")
    hidden = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with hidden.open("x", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        hidden.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be written: {error.strerror or error}. Name another file."
        ) from error
    finally:
        with suppress(OSError):
            hidden.unlink()


def _sync_folder(folder: Path) -> None:
    """The new name is on the disk only once its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
