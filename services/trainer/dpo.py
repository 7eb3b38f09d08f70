"""DPO with TRL, in a child process. Yuan et al., section 3.1.2, for the values.

What TRL would do unasked, and we undo or say:
- `disable_dropout=True` cancels the paper's dropout: set to False, and the rate put
  into the model's config (Llama-like models have dropout on attention only);
- its schedule decays to zero: a polynomial of power 1 ends at the floor instead;
- `max_length` 1024: taken from the config;
- weights held in bf16 lose updates at a learning rate of 1e-6: they stay float32,
  with bf16 autocast in the forward pass.
"""

import math
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, set_seed
from trl import DPOConfig, DPOTrainer

from services.trainer.child import open_channel, report, reported_errors
from services.trainer.whole_model import save


class Reporter(TrainerCallback):  # type: ignore[misc]
    """Sends what TRL logs to the parent, as it is logged."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        report(self._channel, num_steps=state.max_steps)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        metrics = {k: v for k, v in (logs or {}).items() if math.isfinite(v)}
        report(self._channel, step=state.global_step, metrics=metrics)


def main() -> None:
    task, channel = open_channel()
    with reported_errors(channel):
        train(task, channel)


def train(task: dict[str, Any], channel: Any) -> None:
    """Train on `task["pairs"]` from `task["base"]` and write the model to `task["output"]`."""
    config, output = task["config"], Path(task["output"])
    set_seed(task["seed"])
    tokenizer = AutoTokenizer.from_pretrained(task["base"])
    trainer = DPOTrainer(
        model=_load(task["base"], config["dropout"]),
        args=arguments(config, len(task["pairs"]), task["seed"], output / "trainer"),
        train_dataset=Dataset.from_list(task["pairs"]),
        processing_class=tokenizer,
        peft_config=_lora(config["weights"]),
        callbacks=[Reporter(channel)],
    )
    trainer.train()
    save(trainer.model, tokenizer, output)


def _load(path: str, dropout: float) -> Any:
    model = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attention_dropout=dropout
    )
    model.config.use_cache = False
    return model


def arguments(config: dict[str, Any], num_pairs: int, seed: int, output: Path) -> DPOConfig:
    """TRL's arguments for one epoch or more over `num_pairs` pairs."""
    micro = min(config["micro_batch_size"], num_pairs)
    accumulation = max(1, min(config["batch_size"], num_pairs) // micro)
    return DPOConfig(
        output_dir=str(output),
        learning_rate=config["learning_rate"],
        lr_scheduler_type="polynomial",
        lr_scheduler_kwargs={"lr_end": config["learning_rate_floor"], "power": 1.0},
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=accumulation,
        num_train_epochs=config["num_epochs"],
        beta=config["beta"],
        disable_dropout=False,
        max_length=config["max_length"],
        precompute_ref_log_probs=True,
        bf16=True,
        gradient_checkpointing=torch.cuda.is_available(),
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        seed=seed,
        data_seed=seed,
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=True,
    )


def _lora(weights: dict[str, Any]) -> LoraConfig | None:
    if weights["kind"] == "full":
        return None
    return LoraConfig(
        r=weights["rank"],
        lora_alpha=weights["alpha"],
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


if __name__ == "__main__":
    main()
