"""Our DPO training against TRL's `DPOTrainer` with its defaults, on the same batches.

    python -m benchmarks.train [--pairs 256] [--rounds 3] [--base FOLDER] [--only SIDE]

Both train the same model on the same pairs, as the same token ids, in the same order, 16 pairs
in an optimizer step, with the same seed, learning rate and beta. TRL's side is what its defaults
make of it: 8 pairs at a time, activations checkpointed, the reference in every step. Each run is
a process of its own, timed from loading the model to the last step; the sides take turns, and
the ratio of the medians is the result.

`known` is ours once more, where the reference's log-probabilities are already kept: a replay, or
another pair policy over the same answers.

Whether the result is the same: how far the trained weights are from TRL's, as a part of the way
that TRL went from the base, beside the same of TRL with 4 pairs at a time, which is what another
order of rounding alone does.

Prompts and texts are the seeds'; the lengths are log-normal: prompts of 40 words and answers of
100 in the median, up to 300 and 500.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SEEDS = Path(__file__).parents[1] / "rewardloop" / "seeds" / "prompts.jsonl"
BATCH = 16
SIDES = ("ours", "known", "trl")
OTHER_ROUNDING = "trl, 4 at a time"


def pairs_of(num_pairs: int) -> list[dict[str, Any]]:
    seeds = [json.loads(line) for line in SEEDS.read_text().splitlines()]
    words = " ".join(seed.get("response") or "" for seed in seeds).split()
    drawn = random.Random(7)

    def text(median: int, spread: float, most: int) -> str:
        length = min(most, max(3, round(median * drawn.lognormvariate(0, spread))))
        start = drawn.randrange(len(words) - length)
        return " ".join(words[start : start + length])

    return [
        {
            "prompt": [{"role": "user", "content": text(40, 0.8, 300)}],
            "chosen": [{"role": "assistant", "content": text(100, 0.7, 500)}],
            "rejected": [{"role": "assistant", "content": text(100, 0.7, 500)}],
        }
        for _ in range(num_pairs)
    ]


def task_of(base: Path, folder: Path, num_pairs: int, kept: Path) -> dict[str, Any]:
    from rewardloop.config import Training

    config = Training(batch_size=BATCH, micro_batch_size="auto", dropout=0.0, learning_rate=1e-5)
    return {
        "base": str(base),
        "output": str(folder),
        "config": config.model_dump(mode="json"),
        "seed": 1,
        "pairs": pairs_of(num_pairs),
        "reference": {"folder": str(kept), "base": "bench"},
    }


def by_trl(task: dict[str, Any], at_once: int) -> Any:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
    from trl import DPOConfig, DPOTrainer

    from services.trainer import optimisation, rows

    class OfTokenIds(DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
            return dataset

    config = task["config"]
    set_seed(task["seed"])
    tokenizer = AutoTokenizer.from_pretrained(task["base"])
    model = AutoModelForCausalLM.from_pretrained(task["base"])
    made, _ = optimisation.made_rows(
        rows.Maker.pairs, task["pairs"], model, tokenizer, config["max_length"], sys.stderr
    )
    arguments = DPOConfig(
        output_dir=task["output"],
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=BATCH // at_once,
        learning_rate=config["learning_rate"],
        **optimisation.schedule("linear", config["learning_rate_floor"]),
        num_train_epochs=1,
        seed=task["seed"],
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_steps=1,
        use_cpu=not torch.cuda.is_available(),
    )
    return OfTokenIds(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(made),
        processing_class=tokenizer,
    )


def run_side(side: str, base: Path, folder: Path, num_pairs: int) -> dict[str, Any]:
    """Called in a process of its own: train, write the weights to `folder`, say how it went."""
    from safetensors.torch import save_file

    from services.trainer import dpo

    kept = folder.parent / ("kept" if side == "known" else f"{folder.name}.kept")
    task = task_of(base, folder, num_pairs, kept)
    if side == "known":
        dpo.build(task, sys.stderr)
    started, cpu = time.monotonic(), time.process_time()
    if side in ("ours", "known"):
        trainer = dpo.build(task, sys.stderr)
    else:
        trainer = by_trl(task, 4 if side == OTHER_ROUNDING else 8)
    trainer.train()
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    folder.mkdir(exist_ok=True)
    save_file(
        {name: weight.detach().contiguous() for name, weight in trainer.model.named_parameters()},
        folder / "weights.safetensors",
    )
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return {
        "side": side,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "losses": [round(x, 4) for x in losses],
    }


def distance(found: Path, other: Path, base: Path) -> float:
    """||found - other|| / ||other - base|| over all weights."""
    from safetensors.torch import load_file

    ours, theirs = (load_file(folder / "weights.safetensors") for folder in (found, other))
    start = load_file(base / "model.safetensors")
    apart = sum(float((ours[n] - theirs[n]).double().square().sum()) for n in theirs)
    went = sum(float((theirs[n] - start[n]).double().square().sum()) for n in theirs)
    return float((apart / went) ** 0.5)


def in_process(side: str, base: Path, folder: Path, num_pairs: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.train", "--only", side, "--base", str(base)]
    command += ["--folder", str(folder), "--pairs", str(num_pairs)]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    said: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    print(
        f"{side:>18}: {said['seconds']:7.1f} s, {said['cpu_seconds']:7.1f} of the processor, "
        f"loss of the last step {said['losses'][-1]:.4f}",
        flush=True,
    )
    return said


def compare(base: Path, folder: Path, num_pairs: int, rounds: int) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side in SIDES:
            said = in_process(side, base, folder / side, num_pairs)
            seconds[side].append(said["seconds"])
    in_process(OTHER_ROUNDING, base, folder / "other", num_pairs)
    median = {side: statistics.median(found) for side, found in seconds.items()}
    return {
        "train_ratio": round(median["ours"] / median["trl"], 3),
        "train_ratio_known_reference": round(median["known"] / median["trl"], 3),
        "train_weights_apart": round(distance(folder / "ours", folder / "trl", base), 4),
        "train_weights_apart_by_rounding": round(
            distance(folder / "other", folder / "trl", base), 4
        ),
        "train_pairs": num_pairs,
        "train_seconds": seconds,
    }


def write_base(folder: Path) -> Path:
    from services.trainer import base_model

    base_model._write(None, folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--base", type=Path, help="a checkpoint; SmolLM2-135M if left out")
    parser.add_argument("--only", help="run one side and say its seconds and losses")
    parser.add_argument("--folder", type=Path, help="with --only: where the weights go")
    options = parser.parse_args()
    if options.only:
        said = run_side(options.only, options.base, options.folder, options.pairs)
        print(json.dumps(said))
        return
    with tempfile.TemporaryDirectory(prefix="rewardloop-train-") as name:
        base = options.base or write_base(Path(name) / "base")
        print(json.dumps(compare(base, Path(name), options.pairs, options.rounds)))


if __name__ == "__main__":
    main()
