"""Writes a model as a checkpoint's files. Knows no TRL, so that unpacking a base starts fast."""

import gc
import shutil
from pathlib import Path
from typing import Any

import torch

from services.trainer import finite
from services.trainer.canaries import write_canaries


def save(model: Any, tokenizer: Any, output: Path) -> None:
    """Write whole weights in float32, tokenizer and canaries to `output`.

    The model is moved to main memory, so that the canaries find the GPU's free.

    Raises:
        ValueError: a weight is not finite.
    """
    output.mkdir(parents=True, exist_ok=True)
    finite.require_weights(model)
    leave_gpu(model)
    model.config.use_cache = True
    model.config.attention_dropout = 0.0
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    remove_scratch(output)
    write_canaries(output)


def leave_gpu(model: Any) -> None:
    """A trainer that is gone is collected too: it and its callbacks hold each other."""
    if torch.cuda.is_available():
        model.zero_grad(set_to_none=True)
        model.to("cpu")
        gc.collect()
        torch.cuda.empty_cache()


def remove_scratch(output: Path) -> None:
    """TRL leaves its own folder and a model card; neither is part of a checkpoint."""
    shutil.rmtree(output / "trainer", ignore_errors=True)
    for name in ("README.md", "training_args.bin"):
        (output / name).unlink(missing_ok=True)
