"""What top-p 0.9 costs a CPU engine: ours, vLLM's own, and none.

    python -m benchmarks.topp [--prompts 16] [--tokens 48] [--rounds 5] [--model DIR]

One vLLM engine (SmolLM2-135M, bfloat16, eager, every core bound) writes 4 samples of each prompt
at temperature 0.7; the sides take turns in it, and `topp_cost` is the median over rounds of the
time with our filter divided by the time without top-p in the same round.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from benchmarks.bare_engine import NUM_SAMPLES, BareEngine, write_model

Row = dict[str, float]
"""Seconds of each side in one round."""


def one_round(engine: BareEngine, num_prompts: int, num_tokens: int, turn: int) -> Row:
    """Each side once, beginning with another one each time."""
    sides = [("none", True, 1.0), ("ours", True, 0.9), ("vllm", False, 0.9)]
    row: Row = {}
    for name, heads_only, top_p in sides[turn % 3 :] + sides[: turn % 3]:
        engine.sort_heads_only(heads_only)
        row[name] = engine.seconds(num_prompts, num_tokens, top_p)
    return row


def summary(rows: list[Row]) -> dict[str, float]:
    def cost(side: str) -> float:
        return round(statistics.median(row[side] / row["none"] for row in rows), 3)

    return {"topp_cost": cost("ours"), "topp_cost_vllm": cost("vllm"), "rounds": len(rows)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", type=Path, help="write SmolLM2 here, or take it from here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rewardloop-bench-") as folder:
        engine = BareEngine(write_model(options.model or Path(folder) / "model"))
        num_tokens = options.prompts * NUM_SAMPLES * options.tokens
        engine.seconds(options.prompts, options.tokens, 0.9)  # warms up
        rows: list[Row] = []
        print("round   no top-p tokens/s   ours tokens/s   vLLM's own tokens/s", flush=True)
        for turn in range(options.rounds):
            row = one_round(engine, options.prompts, options.tokens, turn)
            rows.append(row)
            speeds = [num_tokens / row[side] for side in ("none", "ours", "vllm")]
            print("{:5d}   {:17.1f}   {:13.1f}   {:19.1f}".format(turn + 1, *speeds), flush=True)
        print(json.dumps(summary(rows)), flush=True)
        engine.close()


if __name__ == "__main__":
    main()
