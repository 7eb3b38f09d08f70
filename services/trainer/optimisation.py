"""What supervised fine-tuning and DPO have in common: the model, TRL's arguments, the reports.

What TRL would do unasked, and we undo or say:
- weights held in bf16 lose updates at a learning rate of 1e-6: they stay float32, with
  bf16 autocast in the forward pass;
- its schedule decays to zero: ours ends at `learning_rate_floor`;
- `max_length` 1024: taken from the config;
- gradients are clipped at a norm of 1.0: taken from the config;
- AdamW's constants: named in `ADAMW`, and told with each training;
- it drops a row whose prompt alone fills `max_length`, and says nothing: we drop it first
  and report it.

Knows nothing of losses.
"""

import math
from pathlib import Path
from typing import Any, TextIO

import torch
from peft import LoraConfig
from transformers import AutoConfig, AutoModelForCausalLM, TrainerCallback

from services.trainer.child import report

ADAMW = {
    "optim": "adamw_torch_fused",
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "weight_decay": 0.0,
    "warmup_steps": 0,
}
"""TRL's own values, named so that no release of it changes a training unnoticed. The paper
gives none of them."""


class Reporter(TrainerCallback):  # type: ignore[misc]
    """Sends what TRL logs to the parent, as it is logged."""

    def __init__(self, channel: TextIO) -> None:
        self._channel = channel

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        report(self._channel, num_steps=state.max_steps)
        report(self._channel, batch_size=args.train_batch_size * args.gradient_accumulation_steps)
        told = ("max_grad_norm", "lr_scheduler_type", "bf16", *ADAMW)
        report(self._channel, optimiser={name: getattr(args, name) for name in told})

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        metrics = {k: v for k, v in (logs or {}).items() if math.isfinite(v)}
        report(self._channel, step=state.global_step, metrics=metrics)


def load_model(path: str, dropout: float) -> Any:
    """The model in float32; Llama-like models have dropout on attention only.

    Raises:
        ValueError: the model has none there, and a rate above 0 is asked for.
    """
    config = AutoConfig.from_pretrained(path)
    if hasattr(config, "attention_dropout"):
        config.attention_dropout = dropout
    elif dropout:
        raise ValueError(
            f"a {config.model_type} model has no attention_dropout; set this training's dropout "
            "to 0"
        )
    model = AutoModelForCausalLM.from_pretrained(path, config=config, dtype=torch.float32)
    model.config.use_cache = False
    return model


def lora(weights: dict[str, Any]) -> LoraConfig | None:
    """Adapters on every linear layer but the output's; None trains all weights."""
    if weights["kind"] == "full":
        return None
    return LoraConfig(
        r=weights["rank"],
        lora_alpha=weights["alpha"],
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def schedule(kind: str, floor: float) -> dict[str, Any]:
    """Decay of the learning rate without warm-up, from `learning_rate` r to `floor` f.

    With x the part of all steps that is done before a step: `linear` is f + (r - f)(1 - x),
    `cosine` is f + (r - f)(1 + cos(pi x)) / 2. Both reach f at x = 1, after the last step.
    """
    if kind == "linear":
        # The schedule of this name decays to zero; a polynomial of power 1 has an end.
        return {
            "lr_scheduler_type": "polynomial",
            "lr_scheduler_kwargs": {"lr_end": floor, "power": 1.0},
        }
    if kind == "cosine":
        return {
            "lr_scheduler_type": "cosine_with_min_lr",
            "lr_scheduler_kwargs": {"min_lr": floor},
        }
    raise ValueError(f"there is no schedule {kind!r}: write 'linear' or 'cosine'")


def arguments(config: dict[str, Any], num_rows: int, seed: int, output: Path) -> dict[str, Any]:
    """TRL's arguments, less loss and schedule.

    Fewer rows than a batch make a smaller batch, of as many whole forward passes as there are.
    """
    micro = min(config["micro_batch_size"], num_rows)
    accumulation = max(1, min(config["batch_size"], num_rows) // micro)
    return {
        "output_dir": str(output / "trainer"),
        "learning_rate": config["learning_rate"],
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": accumulation,
        "num_train_epochs": config["num_epochs"],
        "max_length": config["max_length"],
        # 0 clips nothing. A config that was stored before the key was clipped at TRL's 1.0.
        "max_grad_norm": config.get("max_gradient_norm", 1.0) or 0.0,
        **ADAMW,
        "bf16": True,
        "gradient_checkpointing": torch.cuda.is_available(),
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "seed": seed,
        "data_seed": seed,
        "use_cpu": not torch.cuda.is_available(),
        "disable_tqdm": True,
    }


def with_room(
    rows: list[dict[str, Any]], tokenizer: Any, max_length: int, channel: TextIO
) -> list[dict[str, Any]]:
    """The rows whose prompt leaves at least one of `max_length` tokens to learn from.

    Raises:
        ValueError: none does, or there are no rows.
    """
    if not rows:
        raise ValueError("there is nothing to train on: the task has no rows")
    kept = [row for row in rows if _num_tokens(tokenizer, row["prompt"]) < max_length]
    num_dropped = len(rows) - len(kept)
    why = f"the prompt alone fills max_length, {max_length} tokens"
    if not kept:
        raise ValueError(
            f"nothing is left to train on: in all {num_dropped} rows {why}; "
            "raise max_length or take shorter prompts"
        )
    if num_dropped:
        report(channel, num_dropped=num_dropped, why=why)
    return kept


def _num_tokens(tokenizer: Any, prompt: list[dict[str, str]]) -> int:
    rendered = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)
    return len(rendered["input_ids"])
