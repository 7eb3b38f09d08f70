"""Writes a model as a checkpoint's files. Knows no TRL, so that unpacking a base starts fast."""

import shutil
from pathlib import Path
from typing import Any

from services.trainer import finite
from services.trainer.canaries import write_canaries


def save(model: Any, tokenizer: Any, output: Path) -> None:
    """Write whole weights (adapters merged), tokenizer and canaries to `output`.

    Raises:
        ValueError: a weight is not finite.
    """
    output.mkdir(parents=True, exist_ok=True)
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    finite.require_weights(model)
    model.config.use_cache = True
    model.config.attention_dropout = 0.0
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    _remove_scratch(output)
    write_canaries(output)


def _remove_scratch(output: Path) -> None:
    """TRL leaves its own folder and a model card; neither is part of a checkpoint."""
    shutil.rmtree(output / "trainer", ignore_errors=True)
    for name in ("README.md", "training_args.bin"):
        (output / name).unlink(missing_ok=True)
