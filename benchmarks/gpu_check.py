"""Does training work on this machine's GPU, how fast, and in how much memory?

    python -m benchmarks.gpu_check [--tiny] [--only NAME ...] [--seconds 460] [--out FOLDER]

Needs torch, transformers, accelerate, PEFT, TRL, datasets and pydantic; neither a network nor a
database. Each training is the project's own, with the settings of a shipped preset, on a model of
random weights with the shapes of a published one. Where vLLM's CUDA build is there, the engine
samples, sleeps while a model is trained, wakes with what was trained, and is verified. Each step
runs in a process of its own, so that one that lacks memory takes no other along, and says what it
found as soon as it knows; what the time is too short for is skipped and named. `--tiny` is the
CPU form: the same steps with tiny shapes, in this process.

Compares the training's speed with the 800 TFLOP/s that matrix products reach on an H100 or H200,
and its memory with what the preset says it needs. Ends in a table and one line of JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import gpu_check_engine, gpu_check_training
from benchmarks.gpu_check_models import written_model
from benchmarks.gpu_check_training import GIB, Training

Say = Callable[[dict[str, Any]], None]

BESIDE_THE_GENERATOR_GIB = 0.7 * 79.6
"""What vLLM at --gpu-memory-utilization 0.3 leaves of an H100's memory."""
TRAININGS = (
    Training("1b-paper-sft", "1b", "paper", "sft", num_steps=8),
    Training("1b-paper-dpo", "1b", "paper", "dpo", num_steps=8, publishes=True),
    Training("1b-paper-dpo-x8", "1b", "paper", "dpo", num_steps=8, micro_batch_size=8),
    Training("8b-lora-sft", "8b", "8b-80gb", "sft", 4, memory_gib=BESIDE_THE_GENERATOR_GIB),
    Training("8b-lora-dpo", "8b", "8b-80gb", "dpo", 3, memory_gib=BESIDE_THE_GENERATOR_GIB),
    Training("8b-paper-dpo", "8b", "paper", "dpo", num_steps=2, needs_gib=130),
)
ENGINE = "engine"
PACKAGES = ("torch", "transformers", "accelerate", "peft", "trl", "datasets", "vllm")
LEAST_SECONDS = 20.0
"""With less left, a step is not begun."""


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        options.work = options.work or Path(scratch)
        if options.step:
            return _alone(options)
        return _all(options)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu_check", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, in this process")
    parser.add_argument("--isolated", action="store_true", help="a process a step, if tiny too")
    parser.add_argument("--only", nargs="*", choices=steps(), default=steps())
    parser.add_argument("--seconds", type=float, default=460.0, help="for all steps together")
    parser.add_argument("--out", type=Path, help="folder for results.jsonl and log.txt")
    parser.add_argument("--work", type=Path, help="folder for the models (8B takes 16 GB)")
    parser.add_argument("--step", choices=steps(), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _alone(options: argparse.Namespace) -> int:
    """One step, in the child; what libraries print goes to stderr."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _step(options.step, options, lambda said: print(json.dumps(said), file=channel, flush=True))
    return 0


def steps() -> list[str]:
    return ["card", *(training.name for training in TRAININGS), ENGINE]


def _step(name: str, options: argparse.Namespace, say: Say) -> None:
    if name == "card":
        say(card())
        return
    if name == ENGINE:
        _engine(options, say)
        return
    training = next(one for one in TRAININGS if one.name == name)
    if why := _lacks(training, options.tiny):
        say({"skipped": why})
        return
    began = time.perf_counter()
    base = written_model("tiny" if options.tiny else training.shape, options.work)
    say({"write_seconds": round(time.perf_counter() - began, 2)})
    gpu_check_training.run(training, base, options.work, options.tiny, say)


def _engine(options: argparse.Namespace, say: Say) -> None:
    if not torch.cuda.is_available() or find_spec("vllm") is None:
        say({"skipped": "needs a GPU and vLLM's CUDA build"})
        return
    gpu_check_engine.run(written_model("1b", options.work), options.work, say)


def _lacks(training: Training, tiny: bool) -> str:
    if tiny:
        return ""
    if not torch.cuda.is_available():
        return "no GPU, which this shape needs; --tiny runs the same steps on the CPU"
    has = torch.cuda.get_device_properties(0).total_memory / GIB
    if has < training.needs_gib:
        return f"needs {training.needs_gib:.0f} GiB on the card, which has {has:.0f}"
    return ""


def card() -> dict[str, Any]:
    """What the machine is, and its speed at a large bf16 matrix product of random numbers."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    found: dict[str, Any] = {"versions": versions, "python": sys.version.split()[0]}
    if not torch.cuda.is_available():
        return {**found, "card": None, "num_threads": torch.get_num_threads()}
    properties = torch.cuda.get_device_properties(0)
    return {
        **found,
        "card": properties.name,
        "memory_gib": round(properties.total_memory / GIB, 1),
        "cuda": torch.version.cuda,
        "matrix_teraflops": round(_matrix_teraflops(), 1),
    }


def _matrix_teraflops(size: int = 8192, times: int = 20) -> float:
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(times):
        a @ b
    torch.cuda.synchronize()
    return 2 * size**3 * times / (time.perf_counter() - began) / 1e12


def _all(options: argparse.Namespace) -> int:
    deadline = time.monotonic() + options.seconds
    found: dict[str, dict[str, Any]] = {}
    for name in options.only:
        found[name] = {}
        for said in _said(name, options, deadline):
            found[name] |= said
            _keep(options.out, {"step": name, **said})
    _print_table(found)
    failed = [name for name, said in found.items() if "failed" in said]
    print(json.dumps({"gpu_check": "failed" if failed else "passed", "steps": found}))
    return 1 if failed else 0


def _said(name: str, options: argparse.Namespace, deadline: float) -> Iterator[dict[str, Any]]:
    left = deadline - time.monotonic()
    if left < LEAST_SECONDS:
        yield {"skipped": f"{max(0.0, left):.0f} s are left of --seconds"}
    elif options.tiny and not options.isolated:
        here: list[dict[str, Any]] = []
        _step(name, options, here.append)
        yield from here
    else:
        yield from _in_child(name, options, left)


def _in_child(name: str, options: argparse.Namespace, seconds: float) -> Iterator[dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--step", name]
    command += ["--work", str(options.work), *(["--tiny"] if options.tiny else [])]
    log_folder = options.out or options.work
    log_folder.mkdir(parents=True, exist_ok=True)
    with (log_folder / "log.txt").open("a+") as log:
        print(f"== {name}", file=log, flush=True)
        child = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", **os.environ},
        )
        try:
            out, _ = child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            out, _ = child.communicate()
        yield from (json.loads(line) for line in out.splitlines())
        if child.returncode:
            log.seek(0)
            yield {"failed": child.returncode, "log": log.read()[-3000:]}


def _keep(folder: Path | None, said: dict[str, Any]) -> None:
    print(json.dumps(said), flush=True)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "results.jsonl").open("a") as file:
            print(json.dumps(said), file=file)


COLUMNS = {
    "tokens/s": "tokens_per_second",
    "TFLOP/s": "teraflops",
    "share": "share_of_card",
    "computed/real": "computed_share",
    "peak GiB": "peak_gib",
    "held GiB": "reserved_gib",
    "s a step": "median_step_seconds",
    "s to publish": "publish_seconds",
}


def _print_table(found: dict[str, dict[str, Any]]) -> None:
    table = Table(title="Training on this machine, against 800 TFLOP/s")
    for heading in ("training", *COLUMNS):
        table.add_column(heading, justify="left" if heading == "training" else "right")
    for name, said in found.items():
        if "tokens_per_second" in said:
            table.add_row(
                name, *("" if said.get(k) is None else str(said[k]) for k in COLUMNS.values())
            )
        elif "skipped" in said or "failed" in said:
            table.add_row(f"{name}: {said.get('skipped', 'failed')}")
    Console(width=110).print(table)


if __name__ == "__main__":
    sys.exit(main())
