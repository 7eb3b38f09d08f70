"""A folder beside the checkpoints for weights that are loaded once and published never.

It is locked for as long as its process lives; those of dead processes are removed before another
one is made. A file system without locks keeps them.
"""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX = ".merged-"


class Scratch:
    """A folder under `root` that `remove` takes away with all that is in it."""

    def __init__(self, root: Path) -> None:
        _sweep(root)
        self.folder, self._lock = _locked_folder(root)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


def _locked_folder(root: Path) -> tuple[Path, int]:
    """Made anew where somebody swept it away before it was locked."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
        descriptor = os.open(folder, os.O_RDONLY)
        if _lock(descriptor) is not False and folder.exists():
            return folder, descriptor
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """Whether it is ours now; None where the file system knows no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _sweep(root: Path) -> None:
    for left in root.glob(f"{PREFIX}*"):
        with suppress(FileNotFoundError):
            descriptor = os.open(left, os.O_RDONLY)
            try:
                if _lock(descriptor):
                    shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(descriptor)
