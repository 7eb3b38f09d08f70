"""Writes a model as a checkpoint's files. Knows no TRL, so that unpacking a base starts fast."""

import gc
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from services.trainer import finite
from services.trainer.canaries import write_canaries


def save(model: Any, tokenizer: Any, output: Path) -> None:
    """Write whole weights in float32 (adapters merged), tokenizer and canaries to `output`.

    The model is moved to main memory, so that the canaries find the GPU's free.

    Raises:
        ValueError: a weight is not finite.
    """
    output.mkdir(parents=True, exist_ok=True)
    finite.require_weights(model)
    _leave_gpu(model)
    if hasattr(model, "merge_and_unload"):
        model = _merged(model)
        finite.require_weights(model)
    model.config.use_cache = True
    model.config.attention_dropout = 0.0
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    _remove_scratch(output)
    write_canaries(output)


def _merged(adapted: Any) -> Any:
    """W + (alpha / r) B A for each weight W that has adapters, in float32.

    W is read from the base's files: the copy that was trained on is rounded to bf16, and what
    adapters of earlier versions had added would go with the rounding, version by version.
    """
    # PEFT takes a second to import, which unpacking a base can do without.
    from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    config = adapted.peft_config["default"]
    base = AutoModelForCausalLM.from_pretrained(config.base_model_name_or_path, dtype=torch.float32)
    whole = get_peft_model(base, config)
    set_peft_model_state_dict(whole, get_peft_model_state_dict(adapted))
    merged = whole.merge_and_unload()
    # Training may have mended them: where to stop, what to pad with.
    merged.config, merged.generation_config = adapted.config, adapted.generation_config
    return merged


def _leave_gpu(model: Any) -> None:
    """A trainer that is gone is collected too: it and its callbacks hold each other."""
    if torch.cuda.is_available():
        model.zero_grad(set_to_none=True)
        model.to("cpu")
        gc.collect()
        torch.cuda.empty_cache()


def _remove_scratch(output: Path) -> None:
    """TRL leaves its own folder and a model card; neither is part of a checkpoint."""
    shutil.rmtree(output / "trainer", ignore_errors=True)
    for name in ("README.md", "training_args.bin"):
        (output / name).unlink(missing_ok=True)
