"""What busy neighbours cost a CPU engine, by how its threads wait for each other.

    python -m benchmarks.neighbours [--settings stock spin-1000] [--rounds 3] [--model DIR]

One engine a setting, all started before the first measurement and idle while another one works.
In each round every engine writes the same number of tokens twice: on the machine as it is, and
beside one busy process a core. Sides take turns; medians of tokens per second.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.bare_engine import NUM_SAMPLES, BareEngine, write_model

SETTINGS: dict[str, dict[str, str]] = {
    "stock": {"GOMP_SPINCOUNT": "300000"},
    "spin-10000": {"GOMP_SPINCOUNT": "10000"},
    "spin-1000": {"GOMP_SPINCOUNT": "1000"},
    "spin-0": {"GOMP_SPINCOUNT": "0"},
    "stock-nobind": {"GOMP_SPINCOUNT": "300000", "VLLM_CPU_OMP_THREADS_BIND": "nobind"},
    "spin-0-nobind": {"GOMP_SPINCOUNT": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"},
}
"""How often a thread looks for its next work before it sleeps (300,000 is libgomp's own), and
whether it stays on one core."""


class Child:
    """An engine in a process of its own, since OpenMP reads its environment once."""

    def __init__(self, setting: str, model: Path, options: argparse.Namespace) -> None:
        command = [sys.executable, "-m", "benchmarks.neighbours", "--serve", setting]
        command += ["--model", str(model), "--prompts", str(options.prompts)]
        command += ["--tokens", str(options.tokens)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.num_tokens: int = options.prompts * NUM_SAMPLES * options.tokens

    def tokens_per_second(self) -> float:
        assert self._process.stdin
        assert self._process.stdout
        print("once", file=self._process.stdin, flush=True)
        for line in self._process.stdout:
            if line.startswith("seconds "):
                return self.num_tokens / float(line.split()[1])
        raise SystemExit("an engine ended; its error is above")

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(60)


def serve(options: argparse.Namespace) -> None:
    """In the child: one measurement for each line of standard input."""
    engine = BareEngine(options.model, SETTINGS[options.serve])
    engine.sort_heads_only(True)
    for _ in sys.stdin:
        print("seconds", engine.seconds(options.prompts, options.tokens, 0.9), flush=True)
    engine.close()


@contextmanager
def neighbours() -> Iterator[None]:
    """One process a core that does nothing but count."""
    busy = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(busy) for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(children: dict[str, Child], rounds: int) -> dict[str, dict[str, float]]:
    """Median tokens per second of each setting, quiet and busy."""
    found: dict[str, dict[str, list[float]]] = {
        name: {"quiet": [], "busy": []} for name in children
    }
    for number in range(rounds):
        for name, child in children.items():
            found[name]["quiet"].append(child.tokens_per_second())
            with neighbours():
                found[name]["busy"].append(child.tokens_per_second())
            speeds = {at: round(values[-1], 1) for at, values in found[name].items()}
            print(f"round {number + 1}  {name:15s} tokens/s {speeds}", flush=True)
    return {
        name: {at: round(statistics.median(values), 1) for at, values in of_setting.items()}
        for name, of_setting in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS)[:4])
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path, help="write SmolLM2 here, or take it from here")
    parser.add_argument("--serve", choices=SETTINGS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options)
        return
    with tempfile.TemporaryDirectory(prefix="rewardloop-bench-") as folder, ExitStack() as stack:
        model = write_model(options.model or Path(folder) / "model")
        children = {}
        for name in options.settings:
            children[name] = Child(name, model, options)
            stack.callback(children[name].close)
            children[name].tokens_per_second()  # it has started, and is warm
        print(json.dumps({"neighbours": measure(children, options.rounds)}))


if __name__ == "__main__":
    main()
