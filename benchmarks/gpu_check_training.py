"""What the GPU check measures of a training: the project's own, built as its child builds it.

Tokens are those of the rows, prompt and answer, without padding; a pair is two rows. A step's
time is taken between synchronised ends, and the first step is left out. The arithmetic that the
method needs is 6 operations per token and trained weight and 4 per frozen one (its weight
gradient is not wanted), for every weight that is multiplied with: all but an embedding that is
only looked up. Attention's own products, and what gradient checkpointing computes again, are not
counted, so the share of the card is understated.
"""

import io
import json
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks.gpu_check_models import Lengths, examples, pairs
from rewardloop import checkpoints, presets
from rewardloop.config import parse_run_config
from services.trainer import dpo, resumable, sft, whole_model

GIB = 2**30
TFLOPS = 800.0
"""bf16 matrix products of an H100 or H200, as measured (datasheet: 990)."""
TINY_SCALE = 1 / 16


@dataclass(frozen=True, slots=True)
class Training:
    """One of a preset's trainings, on a shape."""

    name: str
    shape: str
    preset: str
    kind: str
    """`sft` or `dpo`."""
    num_steps: int
    """Measured ones; one more is taken first."""
    memory_gib: float | None = None
    """What it must get along with; None is the whole card."""
    needs_gib: float = 0.0
    """Less than so much on the card, and it is skipped."""
    publishes: bool = False
    """The model is also written, with its canaries."""


def task_of(training: Training, base: Path, output: Path, tiny: bool) -> dict[str, Any]:
    """The task as the trainer's child would get it."""
    config = parse_run_config(presets.load(training.preset))
    max_answer = config.sampling.max_tokens
    assert config.bootstrap is not None
    if training.kind == "dpo":
        chosen = config.training.model_dump(mode="json", exclude={"early_stopping"})
    else:
        chosen = config.bootstrap.ift.model_dump(mode="json")
    scale = 1.0
    if tiny:
        scale, max_answer = TINY_SCALE, int(max_answer * TINY_SCALE)
        chosen |= {"max_length": int(chosen["max_length"] * TINY_SCALE), "batch_size": 4}
    chosen["num_epochs"] = 1.0
    # 16 tokens hold the template's marks around a prompt of the greatest length.
    lengths = Lengths(chosen["max_length"] - 40, max_answer, scale)
    num = chosen["batch_size"] * (1 + (1 if tiny else training.num_steps))
    make, key = (pairs, "pairs") if training.kind == "dpo" else (examples, "examples")
    return {
        "base": str(base),
        "output": str(output),
        "config": chosen,
        "seed": 1,
        key: make(num, lengths),
    }


class TokenCount:
    """A collator that counts what it is given and what it makes of it."""

    def __init__(self, collator: Callable[[list[dict[str, Any]]], Any]) -> None:
        self._collator = collator
        self.real: list[int] = []
        """Tokens of the rows of each forward pass."""
        self.computed: list[int] = []
        """With padding."""

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        batch = self._collator(rows)
        self.real.append(sum(map(num_tokens, rows)))
        self.computed.append(batch["input_ids"].numel())
        return batch


def num_tokens(row: dict[str, Any]) -> int:
    """An example's, or both sides' of a pair, the prompt counted with each."""
    if "input_ids" in row:
        return len(row["input_ids"])
    return 2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"])


class StepTimer(TrainerCallback):  # type: ignore[misc]
    """Seconds of each optimizer step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._ended = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._ended = _now()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        now = _now()
        self.seconds.append(now - self._ended)
        self._ended = now


def run(
    training: Training, base: Path, folder: Path, tiny: bool, say: Callable[[dict[str, Any]], None]
) -> None:
    """Say the figures of the training, then those of writing the model."""
    _limit(training.memory_gib)
    figures, trainer = _figures(training, base, folder, tiny)
    say(figures)
    if training.publishes:
        model, tokenizer = trainer.model, trainer.processing_class
        del trainer
        say(_published(model, tokenizer, folder / training.name))


def _limit(gib: float | None) -> None:
    if gib is not None and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, gib * GIB / total))


def _figures(
    training: Training, base: Path, folder: Path, tiny: bool
) -> tuple[dict[str, Any], Any]:
    task = task_of(training, base, folder / training.name, tiny)
    channel = io.StringIO()
    began = _now()
    trainer = (dpo if training.kind == "dpo" else sft).build(task, channel)
    build_seconds = _now() - began
    count, timer = TokenCount(trainer.data_collator), StepTimer()
    trainer.data_collator = count
    trainer.add_callback(timer)
    resumable.run(trainer, channel)
    seconds = timer.seconds[1:]
    first = trainer.args.gradient_accumulation_steps
    real, computed = sum(count.real[first:]), sum(count.computed[first:])
    speed = real / sum(seconds)
    teraflops = speed * flops_per_token(trainer.model) / 1e12
    reports = [json.loads(line) for line in channel.getvalue().splitlines()]
    return {
        "training": training.name,
        "weights": task["config"]["weights"],
        "micro_batch_size": task["config"]["micro_batch_size"],
        "max_length": task["config"]["max_length"],
        "num_weights": sum(weight.numel() for weight in trainer.model.parameters()),
        "build_seconds": round(build_seconds, 2),
        "step_seconds": [round(one, 3) for one in timer.seconds],
        "median_step_seconds": round(statistics.median(seconds), 3),
        "tokens_per_second": round(speed, 1),
        "padding_share": round(1 - real / computed, 3),
        "teraflops": round(teraflops, 2),
        "share_of_card": round(teraflops / TFLOPS, 3) if torch.cuda.is_available() else None,
        **memory(),
        "losses": [
            round(r["metrics"]["loss"], 4) for r in reports if "loss" in r.get("metrics", {})
        ],
    }, trainer


def flops_per_token(model: Any) -> float:
    """See the module's words."""
    looked_up = model.get_input_embeddings().weight
    if looked_up is model.get_output_embeddings().weight:
        looked_up = None
    return float(
        sum(
            (6 if weight.requires_grad else 4) * weight.numel()
            for weight in model.parameters()
            if weight is not looked_up
        )
    )


def memory() -> dict[str, float | None]:
    """The most that was held: of the GPU by tensors and by PyTorch, and of main memory."""
    on_gpu = torch.cuda.is_available()
    return {
        "peak_gib": round(torch.cuda.max_memory_allocated() / GIB, 2) if on_gpu else None,
        "reserved_gib": round(torch.cuda.max_memory_reserved() / GIB, 2) if on_gpu else None,
        "main_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def _published(model: Any, tokenizer: Any, output: Path) -> dict[str, Any]:
    """Seconds to write the model and its canaries, and what rounding does to them."""
    began = _now()
    whole_model.save(model, tokenizer, output)
    canaries = json.loads((output / checkpoints.CANARIES).read_text())
    return {
        "publish_seconds": round(_now() - began, 2),
        "num_canaries": len(canaries["canaries"]),
        "rounding_nats": canaries["rounding_nats"],
    }


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
