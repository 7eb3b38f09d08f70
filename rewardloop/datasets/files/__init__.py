"""From a file or a folder to numbered objects.

Owns which endings there are and who reads them. A file that cannot be read at
all is an error at once; a line or row that holds no object is handed on as a
`BrokenLine`, so that it can be left out by its number. The same rows give the
same objects in whichever kind of file they stand. Knows nothing of formats.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rewardloop.datasets.files.columnar import items_of_columns
from rewardloop.datasets.files.delimited import items_of_table
from rewardloop.datasets.files.folders import files_of
from rewardloop.datasets.files.items import BrokenLine, Item, Items
from rewardloop.datasets.files.json_rows import holds_lines, items_of_json
from rewardloop.datasets.files.text_lines import COMPRESSIONS
from rewardloop.errors import InvalidInput

__all__ = ["ENDINGS", "BrokenLine", "Item", "Items", "read_items", "unit_of"]

_LINES = (".jsonl", ".ndjson", ".jsonlines")
_WHOLE = (".json",)
_TABLES = {".csv": ",", ".tsv": "\t"}
_COLUMNS = (".parquet", ".arrow", ".feather")
_TEXTS = (*_LINES, *_WHOLE, *_TABLES)
ENDINGS = (*_COLUMNS, *_TEXTS, *(f"{text}{packed}" for text in _TEXTS for packed in COMPRESSIONS))
"""All endings of files that are read, in lower case."""


def read_items(path: Path) -> Items:
    """The objects of a file, or of a folder's files, in order.

    Raises:
        InvalidInput: it is missing, unreadable, of another encoding or of an unknown ending.
        BrokenFile: a file that is one JSON value is not valid JSON.
    """
    notes: list[str] = []
    if path.is_dir():
        return Items("row", _items_of_folder(path, notes), notes)
    return Items(unit_of(path), _items_of_file(path, notes), notes)


def unit_of(path: Path) -> str:
    """What this file's numbers count."""
    ending = _ending(path)
    if path.is_dir() or ending in _COLUMNS:
        return "row"
    if ending in _TABLES:
        return "line"
    return "line" if _holds_lines(path, expected=ending not in _WHOLE) else "element"


def _holds_lines(path: Path, *, expected: bool) -> bool:
    try:
        return holds_lines(path, expected=expected)
    except InvalidInput:
        return expected


def _ending(path: Path) -> str:
    """The ending that says what the file holds, without that of its compression."""
    packed = path.suffix.lower() in COMPRESSIONS
    return (path.with_suffix("") if packed else path).suffix.lower()


def _items_of_file(path: Path, notes: list[str]) -> Iterator[Item | BrokenLine]:
    if not path.name.lower().endswith(ENDINGS):
        raise InvalidInput(
            f"{path} has an unknown ending. Convert it to one of {', '.join((*_TEXTS, *_COLUMNS))} "
            f"(texts may be compressed: {', '.join(COMPRESSIONS)}), and name it so."
        )
    ending = _ending(path)
    if ending in _COLUMNS:
        return items_of_columns(path)
    if ending in _TABLES:
        return items_of_table(path, _TABLES[ending], notes)
    return items_of_json(path, notes, lines_expected=ending in _LINES)


def _items_of_folder(folder: Path, notes: list[str]) -> Iterator[Item | BrokenLine]:
    """Numbered through all files; a broken line tells its file and its number there."""
    before = 0
    for path in files_of(folder, ENDINGS, notes):
        number = 0
        for item in _items_of_file(path, notes):
            number += 1
            if isinstance(item, BrokenLine):
                where = f"{path.name}, {unit_of(path)} {item.line}: "
                yield BrokenLine(before + number, where + item.problem)
            else:
                yield replace(item, line=before + number)
        before += number
