"""Which files of a folder are one dataset, in order.

Owns the folders that `datasets.save_to_disk` writes, and folders of shards. A
folder with several splits, or with files of several kinds, is refused with their
names: which one is meant is not guessed. A shard that is missing by its number is
an error. Knows no file from inside.
"""

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from rewardloop.errors import InvalidInput

_SHARD = re.compile(r"^(?P<split>.*?)[-_.]?(?P<number>\d{5})-of-(?P<total>\d{5})")
_INDICES = ("_indices_data_files", "_indices_files")
_PASSED = re.compile(r"^(\.|_|readme|license|dataset_infos?\.json|state\.json)", re.IGNORECASE)
"""Files that stand in published folders and hold no rows."""


def files_of(folder: Path, endings: Sequence[str], notes: list[str]) -> list[Path]:
    """The files that hold the folder's rows, in order.

    Raises:
        InvalidInput: there are none, several datasets, or one with a part missing.
    """
    if (folder / "dataset_dict.json").is_file():
        splits = _json(folder / "dataset_dict.json").get("splits")
        names = splits if isinstance(splits, list) else []
        raise _several(folder, [str(folder / str(name)) for name in names])
    if (folder / "state.json").is_file():
        return _saved(folder)
    return _shards(folder, endings, notes)


def _several(folder: Path, names: Sequence[str]) -> InvalidInput:
    shown = "\n".join(f"  {name}" for name in sorted(names))
    return InvalidInput(f"{folder} holds several datasets; name one of them:\n{shown}")


def _json(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path} cannot be read ({error}). Save the dataset again.") from None
    return found if isinstance(found, dict) else {}


def _saved(folder: Path) -> list[Path]:
    """What `datasets.save_to_disk` wrote, as its state.json lists it."""
    state = _json(folder / "state.json")
    if any(state.get(key) for key in _INDICES):
        raise InvalidInput(
            f"{folder} holds its rows apart from an index of those that are meant, as early "
            "versions of `datasets` saved it. Load and save it with a newer version."
        )
    listed = state.get("_data_files")
    files = listed if isinstance(listed, list) else []
    if not files:
        raise InvalidInput(f"{folder / 'state.json'} lists no data files. Save the dataset again.")
    paths = [folder / Path(str(file.get("filename"))).name for file in files]
    _check_there(folder, [path.name for path in paths if not path.is_file()])
    return paths


def _check_there(folder: Path, missing: Sequence[str]) -> None:
    if missing:
        raise InvalidInput(
            f"{folder} lacks {', '.join(missing)}, so rows are missing. Copy the folder again."
        )


def _shards(folder: Path, endings: Sequence[str], notes: list[str]) -> list[Path]:
    top = _data_files(folder, endings)
    if not top and (folder / "data").is_dir():
        top = _data_files(folder / "data", endings)
    if not top:
        raise _nothing(folder, endings)
    splits = _by_split(top)
    if len(splits) > 1:
        raise _several(folder, _to_name(splits))
    (files,) = splits.values()
    _check_numbers(folder, files)
    notes.append(f"{folder.name}: {len(files)} files were read as one dataset.")
    return files


def _nothing(folder: Path, endings: Sequence[str]) -> InvalidInput:
    inside = [str(path) for path in sorted(folder.iterdir()) if path.is_dir()]
    within = f" Name one of its folders: {', '.join(inside)}." if inside else " Name one file."
    return InvalidInput(f"{folder} is a folder without data files ({', '.join(endings)}).{within}")


def _data_files(folder: Path, endings: Sequence[str]) -> list[Path]:
    return [
        path
        for path in sorted(folder.iterdir(), key=_in_order)
        if path.is_file() and path.name.lower().endswith(tuple(endings))
        if not _PASSED.match(path.name)
    ]


def _in_order(path: Path) -> list[tuple[int, str]]:
    """Numbers by their value: shard 10 comes after shard 9."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part) if part.isdecimal() else -1, part) for part in parts]


def _by_split(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Shards that are numbered alike belong together; any other file is a dataset of its own."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        shard = _SHARD.match(path.name)
        found[f"{shard['split']}-of-{shard['total']}" if shard else path.name].append(path)
    if all(_SHARD.match(path.name) is None for path in paths) and _are_parts(paths):
        return {"": list(paths)}
    return found


def _are_parts(paths: Sequence[Path]) -> bool:
    """`part-0.parquet`, `0001.parquet`: names that differ in their number only."""
    return len({re.sub(r"\d+", "#", path.name) for path in paths}) == 1


def _to_name(splits: dict[str, list[Path]]) -> list[str]:
    return [
        str(files[0])
        if len(files) == 1
        else f"{files[0]} and {len(files) - 1} more shards "
        "(move them into a folder of their own, and name it)"
        for files in splits.values()
    ]


def _check_numbers(folder: Path, files: Sequence[Path]) -> None:
    shard = _SHARD.match(files[0].name)
    if shard is None:
        return
    there = {int(found["number"]) for file in files if (found := _SHARD.match(file.name))}
    missing = sorted(set(range(int(shard["total"]))) - there)
    _check_there(folder, [f"shard {number:05} of {shard['total']}" for number in missing])
