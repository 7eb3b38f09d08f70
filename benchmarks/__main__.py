"""The benchmarks of speed, one after another: `python -m benchmarks [NAME ...]`.

Each is a program of its own with its own table, and ends in one JSON object; this runs them in
processes of their own, so that none warms the next one up, and ends in one table of all their
figures and one JSON object that holds them.
"""

import argparse
import json
import subprocess
import sys
from typing import Any

NAMES = (
    "rollout",
    "fanout",
    "store",
    "swap_pause",
    "adapter_switch",
    "rolling",
    "expected",
    "train",
    "topp",
    "overlap",
    "neighbours",
)
"""Each the name of a module in this package."""


def figures(name: str) -> dict[str, Any]:
    """What the benchmark ends in; its table goes to the terminal as it comes.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    last = "{}"
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    found: dict[str, Any] = json.loads(last)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES, help=f"of {', '.join(NAMES)}")
    names = parser.parse_args().names
    if unknown := set(names) - set(NAMES):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {NAMES}")
    all_figures = {}
    for name in names:
        print(f"== {name}", flush=True)
        all_figures |= figures(name)
    for key, value in all_figures.items():
        print(f"{key:32} {value}")
    print(json.dumps(all_figures))


if __name__ == "__main__":
    main()
