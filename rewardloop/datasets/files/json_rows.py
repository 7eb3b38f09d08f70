"""From JSON text to numbered objects.

Owns JSON: one object a line, one array, or one object that wraps an array. What
a file holds decides, not its ending; where the two differ, a note says so. Lines
are streamed, an array is held whole. An object that gives a key twice, or a
number that JSON does not have, is broken; NaN is null, as pandas means it.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import cast

from rewardloop.datasets.fields import Raw, kind_of
from rewardloop.datasets.files.items import BrokenLine, Item
from rewardloop.datasets.files.text_lines import text_lines
from rewardloop.datasets.files.wrapped_rows import Whole, rows_of
from rewardloop.errors import BrokenFile, InvalidInput

_Lines = Iterator[tuple[int, str]]


def holds_lines(path: Path, *, expected: bool) -> bool:
    """Whether the file holds one object a line, rather than one array or object."""
    first = islice(_filled(text_lines(path)), 2)
    return _is_lines([line for _, line in first], expected=expected)


def items_of_json(
    path: Path, notes: list[str], *, lines_expected: bool
) -> Iterator[Item | BrokenLine]:
    """The objects in order; blank lines are passed over, but counted.

    Raises:
        InvalidInput: the file cannot be read, or is one JSON value without rows.
        BrokenFile: the file is one JSON value that is not valid.
    """
    lines = _filled(text_lines(path))
    first = list(islice(lines, 2))
    is_lines = _is_lines([line for _, line in first], expected=lines_expected)
    if first and is_lines and not lines_expected:
        notes.append(f"{path.name} holds one JSON object a line, and was read so.")
    if first and not is_lines and lines_expected:
        notes.append(f"{path.name} holds one JSON array, and was read so.")
    if is_lines:
        for number, line in chain(first, lines):
            yield _parsed(number, line)
    elif first:
        yield from _elements(path, chain(first, lines), notes)


def _filled(lines: _Lines) -> _Lines:
    return ((number, line) for number, line in lines if line.strip())


def _is_lines(first: Sequence[str], *, expected: bool) -> bool:
    """By the first two lines that are not blank, and what the ending promises."""
    starts = [line.lstrip()[:1] for line in first]
    if not expected:
        return starts == ["{", "{"]
    is_array = starts[:1] == ["["] and (len(first) == 1 or not _is_valid(first[0]))
    return not is_array


def _is_valid(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _parsed(number: int, line: str) -> Item | BrokenLine:
    try:
        value = _loads(line)
    except json.JSONDecodeError as error:
        return BrokenLine(number, f"not valid JSON at column {error.colno}: {error.msg}")
    except (ValueError, RecursionError) as error:
        return BrokenLine(number, f"JSON that cannot be read: {error}")
    return _item(number, value)


def _item(number: int, value: object) -> Item | BrokenLine:
    if isinstance(value, dict):
        return Item(number, cast(Raw, value))
    return BrokenLine(number, f"{kind_of(value)}, not a JSON object")


def _elements(path: Path, lines: _Lines, notes: list[str]) -> Iterator[Item | BrokenLine]:
    # Blank lines keep their place, so that an error's line is the file's.
    text: list[str] = []
    for number, line in lines:
        text += ["\n"] * (number - 1 - len(text))
        text.append(line)
    for number, value in enumerate(_rows(path, _whole(path, "".join(text)), notes), start=1):
        yield _item(number, value)


def _whole(path: Path, text: str) -> object:
    advice = "Give one JSON array, or one JSON object a line."
    try:
        return _loads(text)
    except json.JSONDecodeError as error:
        raise BrokenFile(
            f"{path} is not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}. "
            f"Nothing was imported. Mend that line. {advice}",
            lines=[error.lineno],
        ) from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} holds JSON that cannot be read: {error}. {advice}") from None


def _rows(path: Path, value: object, notes: list[str]) -> Sequence[object]:
    if isinstance(value, list):
        return cast(list[object], value)
    if not isinstance(value, dict):
        raise InvalidInput(
            f"{path} holds {kind_of(value)}, not one JSON array. Give a list of objects."
        )
    try:
        rows, note = rows_of(cast(Whole, value))
    except ValueError as error:
        raise InvalidInput(f"{path} {error}.") from None
    notes.append(f"{path.name} {note}.")
    return rows


def _loads(text: str) -> object:
    return json.loads(text, object_pairs_hook=_object, parse_constant=_constant)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f'the key "{twice}" is given twice in one object')
    return found


def _constant(name: str) -> None:
    if name != "NaN":
        raise ValueError(f"{name} is no number of JSON")
