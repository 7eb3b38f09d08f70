"""Folders: what `datasets.save_to_disk` writes, shards, and what is not guessed.

Tests `rewardloop.datasets.files.folders`.
"""

import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import ipc, parquet

from rewardloop.datasets.files import BrokenLine, Item, read_items, unit_of
from rewardloop.errors import InvalidInput


def shard(path: Path, *prompts: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    held = pyarrow.table({"prompt": list(prompts)})
    if path.suffix == ".parquet":
        parquet.write_table(held, path)
        return
    with ipc.new_stream(path, held.schema) as file:
        file.write_table(held)


def prompts(folder: Path) -> list[object]:
    found = list(read_items(folder))
    assert [item.line for item in found] == list(range(1, len(found) + 1))
    return [item.raw["prompt"] if isinstance(item, Item) else item for item in found]


def saved(folder: Path, *names: str) -> Path:
    """As `datasets.save_to_disk` leaves it; the shards are in state.json's order."""
    for number, name in enumerate(names):
        shard(folder / name, f"{number}a", f"{number}b")
    files = [{"filename": name} for name in names]
    (folder / "state.json").write_text(json.dumps({"_data_files": files, "_split": None}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def test_a_saved_dataset_in_the_order_of_its_state(tmp_path: Path) -> None:
    folder = saved(tmp_path / "set", "data-1.arrow", "data-0.arrow")
    shard(folder / "cache-abc.arrow", "a file of a cache, not listed")
    assert prompts(folder) == ["0a", "0b", "1a", "1b"]
    assert unit_of(folder) == read_items(folder).unit == "row"


def test_a_saved_dataset_that_lacks_a_shard(tmp_path: Path) -> None:
    folder = saved(tmp_path / "set", "data-0.arrow", "data-1.arrow")
    (folder / "data-1.arrow").unlink()
    with pytest.raises(InvalidInput, match=r"set lacks data-1\.arrow, so rows are missing"):
        list(read_items(folder))


@pytest.mark.parametrize("key", ["_indices_data_files", "_indices_files"])
def test_a_saved_dataset_with_an_index_of_its_rows(tmp_path: Path, key: str) -> None:
    """Read without it, rows would come back that were filtered out."""
    folder = saved(tmp_path / "set", "data-0.arrow")
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {key: [{"filename": "i.arrow"}]}))
    with pytest.raises(InvalidInput, match="an index of those that are meant"):
        list(read_items(folder))
    (folder / "state.json").write_text(json.dumps(state | {key: []}))
    assert prompts(folder) == ["0a", "0b"]


@pytest.mark.parametrize("words", ["", "{", "[]"])
def test_a_saved_dataset_whose_state_is_broken(tmp_path: Path, words: str) -> None:
    folder = saved(tmp_path / "set", "data-0.arrow")
    (folder / "state.json").write_text(words)
    with pytest.raises(InvalidInput, match="Save the dataset again"):
        list(read_items(folder))


def test_a_saved_dataset_of_several_splits_names_them(tmp_path: Path) -> None:
    saved(tmp_path / "train", "data-0.arrow")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(InvalidInput) as caught:
        list(read_items(tmp_path))
    assert caught.value.message == (
        f"{tmp_path} holds several datasets; name one of them:\n"
        f"  {tmp_path / 'test'}\n  {tmp_path / 'train'}"
    )
    assert prompts(tmp_path / "train") == ["0a", "0b"]


@pytest.mark.parametrize(
    "names",
    [
        ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
        ["train-00000-of-00002-6ef.parquet", "train-00001-of-00002-a01.parquet"],
        ["0000.parquet", "0001.parquet"],
        ["part-0.arrow", "part-1.arrow"],
        ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"],
    ],
)
def test_shards(tmp_path: Path, names: list[str]) -> None:
    (tmp_path / "README.md").write_text("A card.")
    (tmp_path / "dataset_infos.json").write_text("{}")
    for name in names:
        shard(tmp_path / name, name)
    assert prompts(tmp_path) == names
    items = read_items(tmp_path)
    list(items)
    assert items.notes == [f"{tmp_path.name}: 2 files were read as one dataset."]


def test_the_tenth_shard_comes_after_the_ninth(tmp_path: Path) -> None:
    names = [f"part-{number}.parquet" for number in range(11)]
    for name in names:
        shard(tmp_path / name, name)
    assert prompts(tmp_path) == names


def test_a_shard_that_is_missing_by_its_number(tmp_path: Path) -> None:
    shard(tmp_path / "train-00000-of-00003.parquet", "A")
    shard(tmp_path / "train-00002-of-00003.parquet", "C")
    with pytest.raises(InvalidInput, match="lacks shard 00001 of 00003, so rows are missing"):
        list(read_items(tmp_path))


def test_files_of_several_splits_are_not_joined(tmp_path: Path) -> None:
    for name in ["train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"]:
        shard(tmp_path / "data" / f"{name}.parquet", "A")
    with pytest.raises(InvalidInput, match="holds several datasets") as caught:
        list(read_items(tmp_path))
    assert "test-00000-of-00001.parquet" in caught.value.message
    assert "train-00000-of-00002.parquet and 1 more shards" in caught.value.message


@pytest.mark.parametrize("others", [["train.jsonl", "test.jsonl"], ["a.jsonl", "a.csv"]])
def test_files_of_several_names_or_kinds_are_not_joined(tmp_path: Path, others: list[str]) -> None:
    for name in others:
        (tmp_path / name).write_text('{"prompt": "A"}\n')
    with pytest.raises(InvalidInput, match="holds several datasets; name one of them"):
        list(read_items(tmp_path))


def test_a_folder_of_folders_names_them(tmp_path: Path) -> None:
    saved(tmp_path / "en", "data-0.arrow")
    with pytest.raises(InvalidInput, match=r"without data files .*Name one of its folders: .*en\."):
        list(read_items(tmp_path))


def test_a_broken_line_of_a_shard_tells_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "part-0.jsonl").write_text('{"prompt": "A"}\n\n{"prompt": "B"}\n')
    (tmp_path / "part-1.jsonl").write_text('{"prompt": "C"}\n\n{"a": }\n')
    *good, broken = prompts(tmp_path)
    assert good == ["A", "B", "C"]
    assert broken == BrokenLine(
        4,
        "part-1.jsonl, line 3: not valid JSON at column 7: Expecting value",
    )


def test_one_shard_of_two(tmp_path: Path) -> None:
    shard(tmp_path / "train-00001-of-00002.parquet", "A")
    with pytest.raises(InvalidInput, match="shard 00000 of 00002"):
        list(read_items(tmp_path))


def test_the_one_shard_that_there_is(tmp_path: Path) -> None:
    shard(tmp_path / "train-00000-of-00001.parquet", "A")
    assert prompts(tmp_path) == ["A"]
