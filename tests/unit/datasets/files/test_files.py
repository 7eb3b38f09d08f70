"""`read_items`: which files are read, what their rows become, and what is told.

Tests `rewardloop.datasets.files.json_rows`, `rewardloop.datasets.files.text_lines`,
`rewardloop.datasets.files.wrapped_rows`, `rewardloop.datasets.files.signatures`,
`rewardloop.datasets.files.items`.
"""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest

from rewardloop.datasets.files import BrokenLine, Item, read_items, unit_of
from rewardloop.errors import BrokenFile, InvalidInput

ROWS: list[dict[str, Any]] = [
    {"prompt": 'Say "hi",\nthen stop.', "rank": 1, "label": True},
    {"prompt": "Grüße\u2028 ja", "rank": 2, "label": False},
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
ARRAY = json.dumps(ROWS, indent=1).encode()


def zstd(content: bytes) -> bytes:
    return bytes(pyarrow.Codec("zstd").compress(content, asbytes=True))


def written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def raws(path: Path) -> list[Any]:
    """The rows of a file in which nothing is broken."""
    found = list(read_items(path))
    assert not [item for item in found if isinstance(item, BrokenLine)]
    return [dict(item.raw) for item in found if isinstance(item, Item)]


def notes(path: Path) -> list[str]:
    items = read_items(path)
    list(items)
    return items.notes


@pytest.mark.parametrize(
    ("ending", "pack"),
    [
        ("", bytes),
        (".gz", gzip.compress),
        (".xz", lzma.compress),
        (".bz2", bz2.compress),
        (".zst", zstd),
        (".ZST", lambda content: zstd(content) + zstd(b"")),
    ],
)
@pytest.mark.parametrize(
    ("name", "content"), [("a.jsonl", LINES), ("a.ndjson", LINES), ("a.json", ARRAY)]
)
def test_text_kinds_in_every_compression(
    tmp_path: Path, name: str, content: bytes, ending: str, pack: Callable[[bytes], bytes]
) -> None:
    path = written(tmp_path, name + ending, pack(content))
    assert raws(path) == ROWS
    assert notes(path) == []


@pytest.mark.parametrize(
    ("ending", "pack"),
    [(".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress), (".zst", zstd)],
)
@pytest.mark.parametrize("cut", [5, 300])
def test_a_compressed_file_that_was_cut_off_is_refused(
    tmp_path: Path, ending: str, pack: Callable[[bytes], bytes], cut: int
) -> None:
    rows = "".join(json.dumps({"prompt": f"{n * n * 7919:x}"}) + "\n" for n in range(4_000))
    path = written(tmp_path, f"a.jsonl{ending}", pack(rows.encode())[:-cut])
    with pytest.raises(InvalidInput, match=r"is not a whole \w+ file .*Copy it again"):
        list(read_items(path))


@pytest.mark.parametrize("ending", [".gz", ".xz", ".bz2", ".zst"])
def test_a_file_that_is_not_compressed_as_its_name_says(tmp_path: Path, ending: str) -> None:
    path = written(tmp_path, f"a.jsonl{ending}", LINES)
    with pytest.raises(InvalidInput, match=f"or drop {ending} from its name"):
        list(read_items(path))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.jsonl", gzip.compress(LINES, mtime=0), r"compressed with gzip.*\.gz.*data\.jsonl\.gz"),
        ("a.json", zstd(ARRAY), r"compressed with zstd"),
        ("a.csv.gz", lzma.compress(b"x"), r"compressed with xz"),
        ("a.parquet", gzip.compress(b"x", mtime=0), r"compressed with gzip"),
        ("a.jsonl", b"PAR1\x00\x01", r"is Parquet data\. Rename it so that it ends in \.parquet"),
        ("a.parquet", b"ARROW1\0\0", r"is Arrow data\. Rename it"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid", r"git lfs pull"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid", r"git lfs pull"),
        ("a.json", b"\n <!DOCTYPE html><html>", r"is an HTML page"),
        ("a.csv", b"\xef\xbb\xbf<html><body>", r"is an HTML page"),
        ("a.feather", b"FEA1\0\0", r"Feather file of version 1"),
        ("a.parquet", b"PARE\x01\x02", r"is an encrypted Parquet file"),
        ("a.jsonl", b"-----BEGIN PGP MESSAGE-----\n", r"is encrypted \(PGP\)"),
        ("a.csv", b"Salted__\x01\x02", r"is encrypted \(openssl\)"),
        ("a.csv", b"PK\x03\x04\x14\x00", r"zip archive \(or an Excel file\)"),
    ],
)
def test_a_file_that_is_something_else_is_named(
    tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    with pytest.raises(InvalidInput, match=told):
        list(read_items(written(tmp_path, name, content)))


@pytest.mark.parametrize("name", ["a.xlsx", "a.parquet.gz", "a", "jsonl", "a.zip", "a.gz"])
def test_unknown_endings_list_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match=r"unknown ending.*\.jsonl.*\.csv.*\.parquet.*\.zst"):
        read_items(written(tmp_path, name, LINES))


def test_lines_under_the_name_of_an_array_are_read_and_told(tmp_path: Path) -> None:
    path = written(tmp_path, "a.json", b"\n" + LINES)
    assert raws(path) == ROWS
    assert notes(path) == ["a.json holds one JSON object a line, and was read so."]
    assert unit_of(path) == read_items(path).unit == "line"


@pytest.mark.parametrize("content", [ARRAY, json.dumps(ROWS).encode()])
def test_an_array_under_the_name_of_lines_is_read_and_told(tmp_path: Path, content: bytes) -> None:
    path = written(tmp_path, "a.jsonl", content)
    assert raws(path) == ROWS
    assert notes(path) == ["a.jsonl holds one JSON array, and was read so."]
    assert unit_of(path) == "element"


def test_lines_that_begin_with_a_list_are_still_lines(tmp_path: Path) -> None:
    found = list(read_items(written(tmp_path, "a.jsonl", b'[1]\n{"prompt": "A"}\n')))
    assert found == [BrokenLine(1, "an array, not a JSON object"), Item(2, {"prompt": "A"})]


@pytest.mark.parametrize(
    ("whole", "note"),
    [
        ({"data": ROWS}, 'a.json holds its rows in the list under "data".'),
        (
            {"version": 2, "train": ROWS, "licence": "x"},
            'a.json holds its rows in the list under "train"; '
            'what stands beside it was not read: "version", "licence".',
        ),
        (
            {key: {str(n): row[key] for n, row in enumerate(ROWS)} for key in ROWS[0]},
            "a.json holds one object of columns, and was read as 2 rows.",
        ),
        (
            {str(n): row for n, row in enumerate(ROWS)},
            "a.json holds one object of numbered rows, and was read as 2 rows.",
        ),
        (
            {
                "columns": list(ROWS[0]),
                "index": [0, 1],
                "data": [list(row.values()) for row in ROWS],
            },
            "a.json holds columns and data apart, and was read as 2 rows.",
        ),
        (
            {
                "features": [{"feature_idx": 0, "name": "prompt"}],
                "rows": [
                    {"row_idx": n, "row": row, "truncated_cells": []} for n, row in enumerate(ROWS)
                ],
            },
            "a.json holds an answer of the datasets server, and was read as 2 rows.",
        ),
    ],
)
def test_one_object_that_wraps_rows(tmp_path: Path, whole: dict[str, Any], note: str) -> None:
    path = written(tmp_path, "a.json", json.dumps(whole).encode())
    assert raws(path) == ROWS
    assert notes(path) == [note]


def test_a_row_that_the_datasets_server_cut_is_no_row_of_its_own(tmp_path: Path) -> None:
    cut = {"row_idx": 0, "row": ROWS[0], "truncated_cells": ["prompt"]}
    path = written(tmp_path, "a.json", json.dumps({"rows": [cut]}).encode())
    assert raws(path) == [cut]


def test_several_wrapped_lists_are_refused_by_name(tmp_path: Path) -> None:
    path = written(tmp_path, "a.json", json.dumps({"train": ROWS, "test": ROWS}).encode())
    with pytest.raises(InvalidInput, match=r"holds several lists of rows \(train, test\)"):
        list(read_items(path))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "A"},
        {"messages": [{"role": "user", "content": "A"}]},
        {"id": "0", "data": ["question", "answer"]},
    ],
)
def test_one_object_without_a_wrapped_list_is_one_row(tmp_path: Path, row: dict[str, Any]) -> None:
    path = written(tmp_path, "a.json", json.dumps(row, indent=2).encode())
    assert raws(path) == [row]
    assert notes(path) == ["a.json holds one JSON object, and was read as one row."]


@pytest.mark.parametrize(("value", "kind"), [("3", "a number"), ('"A"', "a text")])
def test_a_json_file_of_neither_is_refused(tmp_path: Path, value: str, kind: str) -> None:
    path = written(tmp_path, "a.json", value.encode())
    with pytest.raises(InvalidInput, match=f"holds {kind}, not one JSON array"):
        list(read_items(path))


def test_the_line_of_broken_json_is_the_files_line(tmp_path: Path) -> None:
    path = written(tmp_path, "a.json", b'\n\n[\n\n{"prompt": "A"},\n{"prompt" "B"}]')
    with pytest.raises(BrokenFile, match="at line 6, column 11") as caught:
        list(read_items(path))
    assert caught.value.context == {"lines": [6]}


def test_nan_is_null_and_no_other_constant_is_a_number(tmp_path: Path) -> None:
    lines = b'{"a": NaN, "b": [NaN]}\n{"a": -Infinity}\n'
    found = list(read_items(written(tmp_path, "a.jsonl", lines)))
    assert found == [
        Item(1, {"a": None, "b": [None]}),
        BrokenLine(2, "JSON that cannot be read: -Infinity is no number of JSON"),
    ]


def test_a_key_that_is_given_twice_breaks_its_line(tmp_path: Path) -> None:
    lines = b'{"prompt": "A", "label": true, "label": false}\n{"m": [{"x": 1, "x": 1}]}\n{"x": 1}\n'
    found = list(read_items(written(tmp_path, "a.jsonl", lines)))
    assert found == [
        BrokenLine(1, 'JSON that cannot be read: the key "label" is given twice in one object'),
        BrokenLine(2, 'JSON that cannot be read: the key "x" is given twice in one object'),
        Item(3, {"x": 1}),
    ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a.arrow"])
def test_an_empty_file_has_no_rows(tmp_path: Path, name: str) -> None:
    assert list(read_items(written(tmp_path, name, b""))) == []


@pytest.mark.parametrize("name", ["a.jsonl", "a.json.gz", "a.csv", "a.parquet", "a.arrow"])
def test_a_missing_file_of_any_kind(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match=r"does not exist\. Check the path\."):
        list(read_items(tmp_path / name))


@pytest.mark.parametrize("data", [[["Q", "a"], ["R"]], [["Q", "a", "b"]], ["ab"]])
def test_rows_of_another_width_are_no_split_table(tmp_path: Path, data: list[Any]) -> None:
    held = {"columns": ["prompt", "completion"], "data": data}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(held))
    assert list(read_items(path)) == [Item(1, held)]


@pytest.mark.parametrize("held", [{"columns": ["a", "b"], "prompt": "Q"}, {"data": [["Q"]]}])
def test_half_a_split_table_is_one_row(tmp_path: Path, held: dict[str, Any]) -> None:
    path = written(tmp_path, "a.json", json.dumps(held).encode())
    assert raws(path) == [held]
