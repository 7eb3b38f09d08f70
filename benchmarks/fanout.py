"""One worker's roll-out against a bare client, on an engine that costs nothing.

    python -m benchmarks.fanout [--prompts 5000] [--rounds 3] [--growth 1000,10000]

Both sides ask one stub engine (0.2 s an answer, in a process of its own) for 4 samples a prompt
and 3 constrained judgements a sample. The bare side is an asyncio client that stores nothing:
a semaphore of 2,048 calls, each answer judged as soon as it is there, the rubric rendered by the
same code. Ours is one worker that stores everything in Postgres, with the judge service beside
it. The sides take turns; `fanout_ratio` is the median of the rounds' ratios. The machine's cores
are shared with the stub itself, so CPU seconds are shown for each process: of those, the
worker's per 1,000 calls depend least on the machine.

`growth_ratio`: seconds a prompt with the most prompts over those with the fewest.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.fanout_home import Bench, bench

LATENCY_SECONDS = 0.2


async def compare(made: Bench, num_prompts: int, rounds: int) -> dict[str, Any]:
    found = []
    for number in range(rounds):
        bare, ours = await made.bare(num_prompts), await made.ours(num_prompts)
        found.append((bare, ours))
        _print_row(f"round {number + 1}", num_prompts, bare, ours)
    sides = [ours for _, ours in found]
    return {
        "fanout_ratio": round(statistics.median(o["seconds"] / b["seconds"] for b, o in found), 3),
        "fanout_seconds": [(b["seconds"], o["seconds"]) for b, o in found],
        "fanout_lag_p99_ms": statistics.median(ours["lag_p99_ms"] for ours in sides),
        "fanout_worker_cpu_ms_per_call": statistics.median(
            ours["cpu_ms_per_call"] for ours in sides
        ),
        "fanout_worker_mb": [ours["mb"] for ours in sides],
        "prompts": num_prompts,
    }


async def grow(made: Bench, sizes: list[int]) -> dict[str, Any]:
    per_prompt = []
    for size in sizes:
        ours = await made.ours(size)
        per_prompt.append(ours["seconds"] / size)
        _print_row("growth", size, None, ours)
    return {
        "growth_ratio": round(per_prompt[-1] / per_prompt[0], 3),
        "growth_ms_per_prompt": [round(1000 * seconds, 3) for seconds in per_prompt],
        "growth_prompts": sizes,
    }


def _print_row(name: str, size: int, bare: dict[str, Any] | None, ours: dict[str, Any]) -> None:
    against = ""
    if bare is not None:
        ratio = ours["seconds"] / bare["seconds"]
        against = (
            f" | bare {bare['seconds']:6.1f} s, CPU {bare['cpu']:5.1f} s, lag p99 "
            f"{bare['lag_p99_ms']:.0f} ms | ratio {ratio:5.2f}"
        )
    cpu = ", ".join(f"{name} {seconds:.1f}" for name, seconds in ours["cpu"].items())
    print(
        f"{name}: {size} prompts, ours {ours['seconds']:6.1f} s, CPU {cpu} s, "
        f"{ours['cpu_ms_per_call']:.2f} ms of the worker's a call, lag p99 "
        f"{ours['lag_p99_ms']:.0f} ms, worker {ours['mb']} MB{against}",
        flush=True,
    )


async def measure(
    folder: Path, num_prompts: int, rounds: int, sizes: list[int], options: dict[str, Any]
) -> dict[str, Any]:
    most = max([num_prompts, *sizes])
    async with bench(folder, most, LATENCY_SECONDS, **options) as made:
        found = await compare(made, num_prompts, rounds) if rounds else {}
        return {**found, **(await grow(made, sizes) if sizes else {})}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3, help="0: growth alone")
    parser.add_argument("--growth", default="1000,10000", help="numbers of prompts; empty: none")
    parser.add_argument("--in-flight", type=int, default=1024, help="prompts of ours at once")
    parser.add_argument("--profile", type=Path, help="where cProfile writes of the worker")
    options = parser.parse_args()
    sizes = [int(size) for size in options.growth.split(",") if size]
    how = {"in_flight": options.in_flight, "profile": options.profile}
    with tempfile.TemporaryDirectory(prefix="rewardloop-bench-") as folder:
        work = measure(Path(folder), options.prompts, options.rounds, sizes, how)
        print(json.dumps(asyncio.run(work)))


if __name__ == "__main__":
    main()
