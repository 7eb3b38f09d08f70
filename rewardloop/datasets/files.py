"""From a file to numbered JSON objects.

Owns compression, encoding and JSON. A file that cannot be read as text is an
error at once; a line that is no JSON object is handed on as a `BrokenLine`, so
that all of them can be told together. Lines are streamed, an array is held
whole. Knows nothing of formats.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from rewardloop.datasets.fields import Raw, kind_of
from rewardloop.errors import BrokenFile, InvalidInput

_LINES = (".jsonl", ".jsonl.gz")
_ARRAY = (".json", ".json.gz")


@dataclass(frozen=True, slots=True)
class BrokenLine:
    """A line, or an array's element, that cannot become a prompt."""

    line: int
    """Counted from 1; of a `.json` file the element's number."""
    problem: str


@dataclass(frozen=True, slots=True)
class Item:
    """One JSON object of a file."""

    line: int
    raw: Raw


def read_items(path: Path) -> Iterator[Item | BrokenLine]:
    """The file's objects in order; blank lines are passed over, but counted.

    Raises:
        InvalidInput: the file is missing, unreadable, not UTF-8 or has an unknown ending.
        BrokenFile: a `.json` file is not valid JSON.
    """
    name = path.name.lower()
    if name.endswith(_LINES):
        return _items_of_lines(path)
    if name.endswith(_ARRAY):
        return _items_of_array(path)
    raise InvalidInput(
        f"{path} has an unknown ending. Convert it to one JSON object a line (.jsonl, .jsonl.gz) "
        "or one JSON array (.json), and name it so."
    )


def unit_of(path: Path) -> str:
    """What this file's numbers count."""
    return "element" if path.name.lower().endswith(_ARRAY) else "line"


def _items_of_lines(path: Path) -> Iterator[Item | BrokenLine]:
    for number, line in _text_lines(path):
        if line.strip():
            yield _parsed(number, line)


def _parsed(number: int, line: str) -> Item | BrokenLine:
    try:
        value: object = json.loads(line)
    except json.JSONDecodeError as error:
        return BrokenLine(number, f"not valid JSON at column {error.colno}: {error.msg}")
    except (ValueError, RecursionError) as error:
        return BrokenLine(number, f"JSON that cannot be read: {error}")
    return _item(number, value)


def _item(number: int, value: object) -> Item | BrokenLine:
    if isinstance(value, dict):
        return Item(number, cast(Raw, value))
    return BrokenLine(number, f"{kind_of(value)}, not a JSON object")


def _items_of_array(path: Path) -> Iterator[Item | BrokenLine]:
    text = "".join(line for _, line in _text_lines(path))
    if not text.strip():
        return
    for number, value in enumerate(_array(path, text), start=1):
        yield _item(number, value)


def _array(path: Path, text: str) -> list[object]:
    advice = "A file with one JSON object a line must be named .jsonl."
    try:
        value: object = json.loads(text)
    except json.JSONDecodeError as error:
        raise BrokenFile(
            f"{path} is not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}. "
            f"Nothing was imported. Mend that line. {advice}",
            lines=[error.lineno],
        ) from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} holds JSON that cannot be read: {error}. {advice}") from None
    if not isinstance(value, list):
        raise InvalidInput(f"{path} holds {kind_of(value)}, not one JSON array. {advice}")
    return cast(list[object], value)


def _text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines end at a newline only: JSON strings may hold U+2028 and its like."""
    with _told_plainly(path), _opened(path) as file:
        for number, line in enumerate(file, start=1):
            yield number, _decoded(path, number, line)


def _opened(path: Path) -> IO[bytes]:
    if path.suffix.lower() == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    return path.open("rb")


def _decoded(path: Path, number: int, line: bytes) -> str:
    try:
        if b"\0" not in line:
            return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError:
        pass
    raise InvalidInput(
        f"{path} is not UTF-8 text: line {number} is binary or in another encoding. Save the file "
        "as UTF-8 (`iconv -t UTF-8`); a gzip file's name must end in .gz."
    )


@contextmanager
def _told_plainly(path: Path) -> Iterator[None]:
    """Turns the system's errors into ones that name the file and what mends it."""
    try:
        yield
    except FileNotFoundError:
        raise InvalidInput(f"{path} does not exist. Check the path.") from None
    except IsADirectoryError:
        raise InvalidInput(f"{path} is a folder. Name one file in it.") from None
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InvalidInput(
            f"{path} is not a whole gzip file ({error}). Copy it again, or drop .gz from its name "
            "if it is not compressed."
        ) from None
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be read: {error.strerror or error}. Check its permissions."
        ) from None
