"""From Parquet, Arrow and Feather files to numbered objects.

Owns what becomes of a column's type: structs are objects, lists lists, times
ISO 8601 texts, decimals numbers, bytes texts where they are UTF-8, numbers of classes
the classes' names; NaN is null. A
struct's null fields are absent, because Arrow pads objects of unlike keys with
nulls. Rows are read in batches. pyarrow is imported on first use, since it takes
long. Knows no format.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewardloop.datasets.files.class_labels import Names, class_names, named
from rewardloop.datasets.files.items import BrokenLine, Item
from rewardloop.datasets.files.signatures import NUM_BYTES, check_signature
from rewardloop.datasets.files.text_lines import told_plainly
from rewardloop.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow

_NUM_ROWS = 1_000
"""How many rows are turned into objects at once."""


def items_of_columns(path: Path) -> Iterator[Item | BrokenLine]:
    """The rows in order.

    Raises:
        InvalidInput: the file is missing, unreadable, encrypted, cut off or of another kind.
    """
    number = 0
    names: Names = {}
    with told_plainly(path), _told_of_arrow(path):
        with path.open("rb") as file:
            start = file.read(NUM_BYTES)
        check_signature(path, start)
        if not start:
            return
        batches = _parquet(path) if path.suffix.lower() == ".parquet" else _arrow(path, start)
        for batch in batches:
            names = names or class_names(batch.schema.metadata)
            for first in range(0, batch.num_rows, _NUM_ROWS):
                for row in batch.slice(first, _NUM_ROWS).to_pylist():
                    number += 1
                    yield Item(
                        number, named({key: plain(value) for key, value in row.items()}, names)
                    )


def _parquet(path: Path) -> Iterator["pyarrow.RecordBatch"]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        _check_columns(path, file.schema_arrow.names)
        yield from file.iter_batches(batch_size=_NUM_ROWS)


def _arrow(path: Path, start: bytes) -> Iterator["pyarrow.RecordBatch"]:
    import pyarrow
    from pyarrow import ipc

    with pyarrow.memory_map(str(path)) as source:
        if start.startswith(b"ARROW1"):
            file = ipc.open_file(source)
            _check_columns(path, file.schema.names)
            for number in range(file.num_record_batches):
                yield file.get_batch(number)
        else:
            stream = ipc.open_stream(source)
            _check_columns(path, stream.schema.names)
            yield from stream


def _check_columns(path: Path, names: list[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidInput(f"{path} has these columns twice: {', '.join(twice)}. Rename one.")


@contextmanager
def _told_of_arrow(path: Path) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        kind = "Parquet" if path.suffix.lower() == ".parquet" else "Arrow"
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidInput(
            f"{path} is not a whole {kind} file ({told}). Copy it again, or write it again."
        ) from None


def plain(value: Any) -> object:
    """The value as JSON has it."""
    match value:
        case dict():
            return _object(value.items())
        case list():
            if value and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):
                return _object(value)
            return [plain(element) for element in value]
        case float():
            return None if math.isnan(value) else value
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case bytes():
            return _text_of(value)
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case None | bool() | int() | str():
            return value
        case _:
            return str(value)


def _object(pairs: Any) -> dict[str, object]:
    return {str(key): plain(value) for key, value in pairs if value is not None}


def _text_of(value: bytes) -> str:
    """Bytes of a text column that was written without its type, or a word on what they are."""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return f"<{len(value)} bytes>"
    return text if "\0" not in text else f"<{len(value)} bytes>"
