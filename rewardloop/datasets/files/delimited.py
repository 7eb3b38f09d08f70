"""From CSV and TSV to numbered objects.

Owns the delimiter, the header, and which row has too few or too many cells. The
file is read twice: once for what each column holds (see `cells`), once for the
rows. Rows are streamed. A row is numbered by the line on which it begins.
"""

import csv
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rewardloop.datasets.files.cells import CellKind, common_kind, is_null, kind_of_cell, value_of
from rewardloop.datasets.files.items import BrokenLine, Item
from rewardloop.datasets.files.text_lines import text_lines
from rewardloop.errors import InvalidInput

_DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}

INDEX = "__index_level_0__"
"""What pandas and Arrow call a table's row numbers; CSV gives them an empty name."""


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    cells: list[str]
    problem: str = ""


def items_of_table(path: Path, delimiter: str, notes: list[str]) -> Iterator[Item | BrokenLine]:
    """The rows in order, as objects of their columns; blank lines are passed over.

    Raises:
        InvalidInput: the file cannot be read, or its header is no header.
    """
    header, used = _header(path, delimiter)
    if used != delimiter:
        notes.append(f"{path.name} is parted by {_DELIMITERS[used]}, and was read so.")
    kinds = _kinds(path, used, header)
    structured = [name for name, kind in kinds.items() if kind is CellKind.STRUCTURE]
    if structured:
        notes.append(f"{path.name}: lists and objects were read from {', '.join(structured)}.")
    for row in _rows(path, used):
        yield _item(row, header, kinds)


def _header(path: Path, delimiter: str) -> tuple[list[str], str]:
    """The columns' names, and the delimiter that parts them: another where the given does not."""
    for used in (delimiter, *_DELIMITERS):
        first = next(_all_rows(path, used), None)
        if first is None:
            return [], delimiter
        if len(first.cells) > 1 and not first.problem:
            return _named(path, first), used
    return _named(path, next(_all_rows(path, delimiter))), delimiter


def _named(path: Path, row: _Row) -> list[str]:
    if row.problem:
        raise InvalidInput(f"{path}, line {row.line}, the header: {row.problem}. Mend it.")
    names = [cell.strip() for cell in row.cells]
    for number, name in enumerate(names):
        if not name:
            names[number] = INDEX if number == 0 else f"column {number + 1}"
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InvalidInput(
            f"{path}: the header (line {row.line}) names these columns twice: {', '.join(twice)}. "
            "Rename one of each."
        )
    return names


def _kinds(path: Path, delimiter: str, header: list[str]) -> dict[str, CellKind]:
    kinds: dict[str, set[CellKind]] = {name: set() for name in header}
    for row in _rows(path, delimiter):
        if row.problem or len(row.cells) != len(header):
            continue
        for name, cell in zip(header, row.cells, strict=True):
            if not is_null(cell) and CellKind.TEXT not in kinds[name]:
                kinds[name].add(kind_of_cell(name, cell))
    return {name: common_kind(found) for name, found in kinds.items()}


def _item(row: _Row, header: list[str], kinds: dict[str, CellKind]) -> Item | BrokenLine:
    if row.problem:
        return BrokenLine(row.line, row.problem)
    if len(row.cells) != len(header):
        return BrokenLine(
            row.line, f"{len(row.cells)} cells, but the header has {len(header)} columns"
        )
    cells = zip(header, row.cells, strict=True)
    return Item(row.line, {name: value_of(cell, kinds[name]) for name, cell in cells})


def _rows(path: Path, delimiter: str) -> Iterator[_Row]:
    """The rows below the header."""
    rows = _all_rows(path, delimiter)
    next(rows, None)
    return rows


def _all_rows(path: Path, delimiter: str) -> Iterator[_Row]:
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader((line for _, line in text_lines(path)), delimiter=delimiter, strict=True)
    while True:
        begins = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield _Row(begins, [], _problem(error, begins, reader.line_num))
            continue
        if cells:
            yield _Row(begins, cells)


def _problem(error: csv.Error, begins: int, ends: int) -> str:
    until = f" (as far as line {ends})" if ends > begins else ""
    if "unexpected end of data" in str(error):
        return f"a quotation mark is opened and never closed{until}"
    if "new-line character" in str(error):
        return "its lines end in a carriage return alone; save it with newlines"
    return f"not valid CSV{until}: {error}"
