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
from services.trainer import adapters, dpo, resumable, sft

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
    micro_batch_size: int | None = None
    """In place of the preset's."""


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
    if training.micro_batch_size is not None:
        chosen["micro_batch_size"] = min(training.micro_batch_size, chosen["batch_size"])
    chosen["batch_size"] = max(chosen["batch_size"], chosen["micro_batch_size"])
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
    """A collator that counts the rows that it is given; the model's embedding counts what is
    computed."""

    def __init__(self, trainer: Any) -> None:
        self._collator = trainer.data_collator
        self.real: list[int] = []
        """Tokens of each batch of rows."""
        self.computed = 0
        """With padding, so far; less where rows share a prompt."""
        trainer.data_collator = self
        trainer.model.get_input_embeddings().register_forward_pre_hook(self._count)

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        self.real.append(sum(map(num_tokens, rows)))
        return self._collator(rows)

    def _count(self, _: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        self.computed += inputs[0].numel()


def num_tokens(row: dict[str, Any]) -> int:
    """An example's, or both sides' of a pair, the prompt counted with each."""
    if "input_ids" in row:
        return len(row["input_ids"])
    return 2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"])


LONGEST_SECONDS = 30.0


class StepTimer(TrainerCallback):  # type: ignore[misc]
    """Seconds of each optimizer step; ends a training that takes LONGEST_SECONDS."""

    def __init__(self, count: TokenCount) -> None:
        self.seconds: list[float] = []
        self.computed: list[int] = []
        """Tokens that had been computed at the end of each."""
        self._count = count
        self._ended = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._ended = _now()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        now = _now()
        self.seconds.append(now - self._ended)
        self._ended = now
        self.computed.append(self._count.computed)
        if len(self.seconds) > 1 and sum(self.seconds) > LONGEST_SECONDS:
            control.should_training_stop = True


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
        say(_published(model, tokenizer, task_of(training, base, folder / training.name, tiny)))


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
    count = TokenCount(trainer)
    timer = StepTimer(count)
    trainer.add_callback(timer)
    resumable.run(trainer, channel)
    seconds = timer.seconds[1:]
    batches = trainer.args.gradient_accumulation_steps  # of an optimizer step
    real = sum(count.real[batches : batches * len(timer.seconds)])
    computed = timer.computed[-1] - timer.computed[0]
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
        "computed_share": round(computed / real, 3),
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


def _published(model: Any, tokenizer: Any, task: dict[str, Any]) -> dict[str, Any]:
    """Seconds to write the model and its canaries, and what rounding does to them."""
    began = _now()
    adapters.save(model, tokenizer, task)
    canaries = json.loads((Path(task["output"]) / checkpoints.CANARIES).read_text())
    return {
        "publish_seconds": round(_now() - began, 2),
        "num_canaries": len(canaries["canaries"]),
        "rounding_nats": canaries["rounding_nats"],
    }


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
