"""Saved states of one training: a folder that outlives the child, the attempt and the trainer.

`<folder>/fits.json` says of which training the states are, `<folder>/passes.json` how its
forward passes are made, `<folder>/step-<n>` is the state after n optimizer steps, and
`<folder>/stop` is there while the training is asked to stop.

Invariants: a state is there whole or not at all (written under another name, synced, renamed);
a state of another training is never gone on from. The folder's name begins with a dot, so that
it is no checkpoint. Knows neither torch nor TRL.
"""

import hashlib
import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rewardloop import __version__

FITS = "fits.json"
WHOLE = "whole.json"
STOP = "stop"
PASSES = "passes.json"
NUM_KEPT = 2
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate")
NOT_OF_THE_RESULT = frozenset(
    ("output", "state", "reference", "base", "adapter", "config", "pairs", "examples")
)
"""Keys of a task that change nothing of the trained weights, or that stand alone below."""


def folder_of(root: Path, name: str) -> Path:
    """Where the states of the training that makes the version `name` lie."""
    return root / f".{name}.state"


def identity(task: dict[str, Any]) -> dict[str, str]:
    """What must be the same for a state to be gone on from, each part by a name to tell."""
    config = {k: v for k, v in task["config"].items() if k != "save_every_steps"}
    settings = {name: task[name] for name in sorted(task.keys() - NOT_OF_THE_RESULT)}
    software = {name: version(name) for name in PACKAGES} | {"rewardloop": __version__}
    return {
        "base": " + ".join(Path(task[k]).name for k in ("base", "adapter") if task.get(k)),
        "config": _digest([config, settings]),
        "rows": _digest([task.get("pairs"), task.get("examples")]),
        "software": json.dumps(software),
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Saved:
    folder: Path
    step: int
    finished: bool
    """The training is over: what is left is to write the checkpoint."""


@dataclass(frozen=True, slots=True)
class States:
    folder: Path

    def claim(self, task: dict[str, Any]) -> list[str]:
        """Take the folder for this task; states of another one are removed.

        Returns what differed, which is empty where the states fit or there are none.
        """
        wanted, path = identity(task), self.folder / FITS
        found = _read(path)
        if found == wanted:
            return []
        differing = [part for part in wanted if found.get(part) != wanted[part]]
        had_states = any(self.folder.glob("step-*"))
        self._clear()
        path.write_text(json.dumps(wanted))
        return differing if had_states else []

    def _clear(self) -> None:
        """All but the wish to stop, which may be older than the child."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != STOP:
                path.unlink()

    def newest(self) -> Saved | None:
        """The newest whose files are what was written."""
        return next((saved for saved in self.listed() if _is_as_written(saved.folder)), None)

    def add(self, written: Path, step: int, finished: bool) -> None:
        """`written` becomes the state after `step` steps; older ones than the last two go.

        After the end only the last is kept: the checkpoint needs the room.
        """
        files = {path.name: sha256(path) for path in written.iterdir()}
        whole = {"step": step, "finished": finished, "files": files}
        (written / WHOLE).write_text(json.dumps(whole))
        for path in (*written.iterdir(), written):
            _sync(path)
        target = self.folder / f"step-{step:09d}"
        shutil.rmtree(target, ignore_errors=True)
        written.rename(target)
        _sync(self.folder)
        self.keep(1 if finished else NUM_KEPT)

    def keep(self, num: int) -> None:
        kept = {saved.folder for saved in self.listed()[:num]}
        for folder in self.folder.glob("step-*"):
            if folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def listed(self) -> list[Saved]:
        """The newest first; their files are not looked at."""
        found = [_saved(folder) for folder in sorted(self.folder.glob("step-*"), reverse=True)]
        return [saved for saved in found if saved is not None]

    @property
    def stop_wanted(self) -> bool:
        return (self.folder / STOP).exists()

    def ask_to_stop(self, wanted: bool) -> None:
        if wanted:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / STOP).touch()
        else:
            (self.folder / STOP).unlink(missing_ok=True)
            with suppress(OSError):
                self.folder.rmdir()  # where nothing was saved yet

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove_unused(self) -> None:
        """A training that failed before anything was worth keeping leaves nothing."""
        if self.folder.is_dir() and {path.name for path in self.folder.iterdir()} <= {FITS, PASSES}:
            self.remove()


def _saved(folder: Path) -> Saved | None:
    said = _read(folder / WHOLE)
    if not isinstance(said.get("step"), int):
        return None
    return Saved(folder, said["step"], said.get("finished") is True)


def _is_as_written(folder: Path) -> bool:
    files = {p.name: sha256(p) for p in folder.iterdir() if p.is_file() and p.name != WHOLE}
    return files == _read(folder / WHOLE).get("files")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
