"""Which rows one JSON object holds, where a file is one object. Pure.

Owns the ways in which tools wrap rows: a list under a key, pandas' tables by
column, by row and split, and the answer of the datasets server. An object that is none of
these is one row. What is taken is said in a note.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

_WRAPPERS = (
    *("data", "rows", "examples", "items", "records", "samples", "dataset", "questions"),
    *("train", "validation", "valid", "dev", "test", "eval"),
)
"""Keys under which a file's one object may hold its rows."""

Whole = Mapping[str, object]
Rows = Sequence[object]


def rows_of(whole: Whole) -> tuple[Rows, str]:
    """The rows, and what to say of them.

    Raises:
        ValueError: it holds several lists of rows.
    """
    for read, words in _SHAPES:
        if rows := read(whole):
            return rows, f"holds {words}, and was read as {len(rows)} rows"
    lists = [key for key in _WRAPPERS if _is_list_of_objects(whole.get(key))]
    if len(lists) > 1:
        raise ValueError(
            f"holds several lists of rows ({', '.join(lists)}). Write the one that you want to a "
            "file of its own"
        )
    if not lists:
        return [whole], "holds one JSON object, and was read as one row"
    others = ", ".join(f'"{key}"' for key in whole if key != lists[0])
    beside = f"; what stands beside it was not read: {others}" if others else ""
    return cast(Rows, whole[lists[0]]), f'holds its rows in the list under "{lists[0]}"{beside}'


def _is_list_of_objects(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(e, dict) for e in value)


def _by_column(whole: Whole) -> Rows:
    """`{column: {"0": cell, "1": cell}}`."""
    columns = {key: value for key, value in whole.items() if isinstance(value, dict)}
    if not columns or len(columns) < len(whole):
        return []
    index = list(next(iter(columns.values())))
    if not _is_index(index) or any(list(column) != index for column in columns.values()):
        return []
    return [{key: column[name] for key, column in columns.items()} for name in index]


def _by_row(whole: Whole) -> Rows:
    """`{"0": {column: cell}, "1": {column: cell}}`."""
    rows = list(whole.values())
    return rows if _is_index(list(whole)) and all(isinstance(row, dict) for row in rows) else []


def _is_index(names: list[str]) -> bool:
    return bool(names) and all(name.isdecimal() for name in names)


def _split(whole: Whole) -> Rows:
    """`{"columns": [...], "index": [...], "data": [[...], [...]]}`."""
    names, cells = whole.get("columns"), whole.get("data")
    if not (isinstance(names, list) and isinstance(cells, list)):
        return []
    if not all(isinstance(row, list) and len(row) == len(names) for row in cells):
        return []
    return [dict(zip(map(str, names), row, strict=True)) for row in cells]


def _served(whole: Whole) -> Rows:
    """`{"features": [...], "rows": [{"row_idx", "row": {...}, "truncated_cells": []}]}`.

    A row whose cells the server cut is handed on as it is, wrapped, so that it is left out.
    """
    rows = whole.get("rows")
    if not _is_list_of_objects(rows):
        return []
    served = cast(list[dict[str, object]], rows)
    if not all({"row_idx", "row"} <= row.keys() for row in served):
        return []
    return [row if row.get("truncated_cells") else row["row"] for row in served]


_SHAPES: tuple[tuple[Callable[[Whole], Rows], str], ...] = (
    (_by_column, "one object of columns"),
    (_by_row, "one object of numbered rows"),
    (_split, "columns and data apart"),
    (_served, "an answer of the datasets server"),
)
