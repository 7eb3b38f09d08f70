"""What supervised fine-tuning and DPO have in common: the model, TRL's arguments, the reports.

What TRL would do unasked, and we undo or say:
- trained weights held in bf16 lose updates at a learning rate of 1e-6: they stay float32, with
  bf16 autocast in the forward pass. Weights that are not trained, the base of adapters, are
  held in bf16, as the engine holds them: half the memory, and no update to lose;
- its schedule decays to zero: ours ends at `learning_rate_floor`;
- `max_length` 1024: taken from the config;
- gradients are clipped at a norm of 1.0: taken from the config;
- AdamW's constants: named in `ADAMW`, and told with each training;
- it renders and encodes the rows with the chat template, which may alter what was sampled and
  makes control tokens of texts that spell them: it is given token ids (`rows`);
- it drops rows that `max_length` leaves nothing of, and says nothing: `rows` does it first
  and counts them.

Knows nothing of losses.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import torch
from transformers import AutoConfig, AutoModelForCausalLM, TrainerCallback

from services.trainer import memory, placement, rows, template
from services.trainer.child import report
from services.trainer.saved_state import States

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

    def __init__(self, channel: TextIO, told: dict[str, Any]) -> None:
        self._channel = channel
        self._told = told

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        report(self._channel, num_steps=state.max_steps)
        report(self._channel, batch_size=args.train_batch_size * args.gradient_accumulation_steps)
        told = ("max_grad_norm", "lr_scheduler_type", "bf16", *ADAMW)
        report(self._channel, optimiser={name: getattr(args, name) for name in told}, **self._told)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        metrics = dict(logs or {})
        if "train_loss" in metrics:  # transformers' own is the mean since the last restart
            losses = [row["loss"] for row in state.log_history if "loss" in row]
            metrics["train_loss"] = sum(losses) / len(losses)
        report(self._channel, step=state.global_step, metrics=metrics)


def load_model(path: str, dropout: float, weights: dict[str, Any] | None = None) -> Any:
    """The model in float32, or in bf16 where `weights` asks for adapters, on its device.

    Llama-like models have dropout on attention only.

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
    placement.take_any_length()
    is_base = weights is not None and weights["kind"] == "lora"
    model = AutoModelForCausalLM.from_pretrained(
        path,
        config=config,
        dtype=torch.bfloat16 if is_base else torch.float32,
        device_map=placement.device_map(),
    )
    model.config.use_cache = False
    return model


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


def passes_of(config: dict[str, Any], model: Any, states: States | None) -> memory.Passes:
    """How the training's forward passes are made on this machine."""
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        ours = free + torch.cuda.memory_allocated()  # an engine may hold the rest
        return memory.passes_of(config, model, states, "cuda", min(ours, total))
    return memory.passes_of(config, model, states, "cpu", memory.of_machine())


def arguments(config: dict[str, Any], num_rows: int, seed: int, output: Path) -> dict[str, Any]:
    """TRL's arguments, less loss and schedule.

    Fewer rows than a batch make one batch. TRL takes it for one forward pass: `parts` splits it.
    """
    return {
        "output_dir": str(output / "trainer"),
        "learning_rate": config["learning_rate"],
        "per_device_train_batch_size": min(config["batch_size"], num_rows),
        "gradient_accumulation_steps": 1,
        "num_train_epochs": config["num_epochs"],
        "max_length": config["max_length"],
        # 0 clips nothing. A config that was stored before the key was clipped at TRL's 1.0.
        "max_grad_norm": config.get("max_gradient_norm", 1.0) or 0.0,
        **ADAMW,
        "bf16": True,
        "logging_steps": 1,
        "save_strategy": "no",  # `resumable` says when
        # It would log a loss that is not finite as the mean of those before it.
        "logging_nan_inf_filter": False,
        "report_to": [],
        "seed": seed,
        "data_seed": seed,
        "use_cpu": not torch.cuda.is_available(),
        "disable_tqdm": True,
    }


def made_rows(
    make: Callable[[rows.Maker, list[dict[str, Any]]], list[dict[str, Any]]],
    given: list[dict[str, Any]],
    model: Any,
    tokenizer: Any,
    config: dict[str, Any],
    channel: TextIO,
) -> tuple[list[dict[str, Any]], rows.Ledger]:
    """The task's rows as token ids; what the template does to them, and what was left out, cut
    or changed, is reported.

    Raises:
        NothingToTrainOn: there are no rows.
        ValueError: the model's chat template takes no conversation.
    """
    if not given:
        raise rows.NothingToTrainOn("there is nothing to train on: the task has no rows")
    told: dict[str, Any] = {}
    fatal = template.FATAL_IN_TRAINING
    if config["weights"]["kind"] == "lora":
        fatal = template.FATAL_FOR_ADAPTERS
    if notes := template.check_and_mend(model, tokenizer, fatal):
        told["chat_template"] = "; ".join(notes)
    ledger = rows.Ledger()
    maker = rows.maker(tokenizer, config["max_length"], template.stop_ids(model, tokenizer), ledger)
    made = make(maker, given)
    if told := {**told, **ledger.told()}:
        report(channel, **told)
    return made, ledger


def emptied(trainer: Any, why: str) -> Any:
    """The trainer without its rows; it says why when it is asked to train.

    TRL makes no trainer of an empty dataset, so this one was made of a row that goes.
    """

    def refuse(*_: Any, **__: Any) -> None:
        raise rows.NothingToTrainOn(why)

    trainer.train_dataset = trainer.train_dataset.select([])
    trainer.train = refuse
    return trainer
