"""Parquet, Arrow and Feather files, and folders of them.

Tests `rewardloop.datasets.files.columnar`, `rewardloop.datasets.files.class_labels`.
"""

import json
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import feather, ipc, parquet

from rewardloop.datasets.files import BrokenLine, Item, read_items, unit_of
from rewardloop.datasets.files.columnar import plain
from rewardloop.errors import InvalidInput
from tests.unit.cases import for_each

ROWS = [
    {"prompt": "A", "messages": [{"role": "user", "content": "x"}], "label": True},
    {"prompt": "B", "messages": [], "label": None},
]


def table(rows: list[dict[str, Any]] = ROWS) -> Any:
    return pyarrow.Table.from_pylist(rows)


def as_stream(path: Path, held: Any) -> None:
    with ipc.new_stream(path, held.schema) as file:
        file.write_table(held)


def as_file(path: Path, held: Any) -> None:
    with ipc.new_file(path, held.schema) as file:
        file.write_table(held, max_chunksize=1)


def raws(path: Path) -> list[Any]:
    found = list(read_items(path))
    assert not [item for item in found if isinstance(item, BrokenLine)]
    return [dict(item.raw) for item in found if isinstance(item, Item)]


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.parquet", lambda path, held: parquet.write_table(held, path)),
        ("a.PARQUET", lambda path, held: parquet.write_table(held, path, compression="zstd")),
        ("a.arrow", as_stream),
        ("a.arrow", as_file),
        ("a.feather", lambda path, held: feather.write_feather(held, str(path))),
        ("b.feather", as_stream),
    ],
)
def test_the_rows_of_each_kind(tmp_path: Path, name: str, write: Any) -> None:
    path = tmp_path / name
    write(path, table())
    assert raws(path) == ROWS
    assert [item.line for item in read_items(path)] == [1, 2]
    assert unit_of(path) == read_items(path).unit == "row"


def test_rows_are_numbered_through_batches(tmp_path: Path) -> None:
    held = pyarrow.table({"prompt": [str(number) for number in range(2_500)]})
    parquet.write_table(held, tmp_path / "a.parquet", row_group_size=700)
    items = list(read_items(tmp_path / "a.parquet"))
    assert [item.line for item in items] == list(range(1, 2_501))
    assert [item.raw["prompt"] for item in items if isinstance(item, Item)][-1] == "2499"


def test_the_padding_of_unlike_objects_is_absent(tmp_path: Path) -> None:
    rows = [{"parts": [{"type": "text", "text": "A"}, {"type": "image", "url": "u"}]}]
    parquet.write_table(table(rows), tmp_path / "a.parquet")
    assert raws(tmp_path / "a.parquet") == rows


@for_each(
    "value, expected",
    [
        (float("nan"), None),
        (2.5, 2.5),
        (True, True),
        (Decimal("4.50"), 4.5),
        (Decimal("4.00"), 4),
        (datetime(2024, 1, 2, 3, 4), "2024-01-02T03:04:00"),
        (date(2024, 1, 2), "2024-01-02"),
        (time(3, 4), "03:04:00"),
        (timedelta(minutes=1), 60.0),
        ("Grüße".encode(), "Grüße"),
        (b"\x89PNG\xff", "<5 bytes>"),
        (b"a\0b", "<3 bytes>"),
        ([("a", 1), ("b", None)], {"a": 1}),
        ({"a": {"b": None, "c": [float("nan")]}}, {"a": {"c": [None]}}),
    ],
)
def test_values_as_json_has_them(value: object, expected: object) -> None:
    assert plain(value) == expected
    assert type(plain(value)) is type(expected)
    json.dumps(plain(value), allow_nan=False)


def test_columns_of_unusual_types(tmp_path: Path) -> None:
    held = pyarrow.table(
        {
            "prompt": pyarrow.array(["A", "B"]).dictionary_encode(),
            "response": pyarrow.array(["a", None], pyarrow.large_string()),
            "kind": pyarrow.array([[("k", 1)], None], pyarrow.map_("string", "int8")),
            "text": pyarrow.array([b"x", b"y"], pyarrow.large_binary()),
            "turns": pyarrow.array([["p"], []], pyarrow.large_list(pyarrow.string())),
            "nothing": pyarrow.nulls(2),
        }
    )
    parquet.write_table(held, tmp_path / "a.parquet")
    first, second = raws(tmp_path / "a.parquet")
    assert first == {
        **{"prompt": "A", "response": "a", "kind": {"k": 1}},
        **{"text": "x", "turns": ["p"], "nothing": None},
    }
    assert (second["response"], second["kind"]) == (None, None)


def with_classes(names: Any) -> Any:
    """As `datasets` writes a column of the type ClassLabel."""
    features = {
        "prompt": {"dtype": "string", "_type": "Value"},
        "label": {"names": names, "_type": "ClassLabel"},
    }
    held = pyarrow.table({"prompt": ["A", "B", "C", "D"], "label": [0, 1, -1, None]})
    return held.replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_numbers_of_classes_become_their_names(tmp_path: Path, name: str) -> None:
    """With these names, 1 is the bad one."""
    write = parquet.write_table if name == "a.parquet" else lambda held, to: as_stream(to, held)
    write(with_classes(["good", "bad"]), tmp_path / name)
    assert [row["label"] for row in raws(tmp_path / name)] == ["good", "bad", None, None]


@pytest.mark.parametrize("told", [b"{", b"[]", b'{"info": null}', b'{"info": {"features": []}}'])
def test_metadata_that_does_not_tell_classes_changes_nothing(tmp_path: Path, told: bytes) -> None:
    held = pyarrow.table({"label": [1]}).replace_schema_metadata({b"huggingface": told})
    parquet.write_table(held, tmp_path / "a.parquet")
    assert raws(tmp_path / "a.parquet") == [{"label": 1}]


@pytest.mark.parametrize(
    ("name", "kind"), [("a.parquet", "Parquet"), ("a.arrow", "Arrow"), ("a.feather", "Arrow")]
)
@pytest.mark.parametrize("cut", [3, 60])
def test_a_file_that_was_cut_off(tmp_path: Path, name: str, kind: str, cut: int) -> None:
    path = tmp_path / name
    parquet.write_table(table(), path) if kind == "Parquet" else as_file(path, table())
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(InvalidInput, match=rf"is not a whole {kind} file .*Copy it again"):
        list(read_items(path))


def test_a_stream_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    as_stream(path, table([{"prompt": "A" * 5_000}] * 3))
    path.write_bytes(path.read_bytes()[:-4_000])
    with pytest.raises(InvalidInput, match="is not a whole Arrow file"):
        list(read_items(path))


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.feather"])
def test_a_text_file_under_the_name_of_a_table(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"prompt": "A"}\n' * 20)
    with pytest.raises(InvalidInput, match="is not a whole"):
        list(read_items(tmp_path / name))


def test_columns_of_one_name(tmp_path: Path) -> None:
    held = pyarrow.Table.from_arrays([pyarrow.array(["A"])] * 2, names=["prompt", "prompt"])
    as_file(tmp_path / "a.arrow", held)
    with pytest.raises(InvalidInput, match="has these columns twice: prompt"):
        list(read_items(tmp_path / "a.arrow"))
