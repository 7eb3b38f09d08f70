"""Stops training once the model's answers no longer win (Yuan et al., section 3.1.2).

Before the first step, then every so many steps and at the last one, the model answers the
validation prompts; the parent compares these answers with those of the check before and
says whether to go on. Invariant: what training leaves in the model are the weights of the
last check that was told to go on.

The kept weights lie in main memory: one float32 copy of what is trained. Knows neither
how answers are compared nor what the loss is.
"""

from typing import Any, TextIO

import torch
from transformers import TrainerCallback

from services.trainer.child import ask, report

NOTHING_KEPT = (
    "no step was kept: the new version has the weights of the one that it was trained from"
)
NUM_PROMPTS_AT_ONCE = 16
"""Prompts that are answered as one padded batch."""


def callbacks(task: dict[str, Any], tokenizer: Any, channel: TextIO) -> list[TrainerCallback]:
    """The task's early stopping; none where its key is missing or null."""
    settings = task.get("early_stopping")
    return [EarlyStopping(settings, tokenizer, channel)] if settings else []


class EarlyStopping(TrainerCallback):  # type: ignore[misc]
    """Asks at each check, keeps the weights or brings the kept ones back."""

    def __init__(self, settings: dict[str, Any], tokenizer: Any, channel: TextIO) -> None:
        self._settings = settings
        self._tokenizer = tokenizer
        self._channel = channel
        self._kept: dict[str, torch.Tensor] = {}
        self._kept_step = 0

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        # There is no check before this one, so its answer can only be to go on.
        self._wins(model, step=0)
        self._keep(model, step=0)

    def on_step_end(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        step = state.global_step
        if step % self._settings["every_num_steps"] and step != state.max_steps:
            return
        if self._wins(model, step):
            self._keep(model, step)
            return
        self._restore(model)
        control.should_training_stop = True
        report(self._channel, stopped_at=step, kept_step=self._kept_step)
        if self._kept_step == 0:
            report(self._channel, outcome=NOTHING_KEPT)

    def _wins(self, model: Any, step: int) -> bool:
        answers = greedy_answers(
            model, self._tokenizer, self._settings["prompts"], self._settings["max_tokens"]
        )
        said = ask(self._channel, validation={"step": step, "answers": answers})
        return bool(said["go_on"])

    def _keep(self, model: Any, step: int) -> None:
        self._kept = {
            name: weight.detach().to("cpu", copy=True) for name, weight in _trained(model)
        }
        self._kept_step = step

    def _restore(self, model: Any) -> None:
        with torch.no_grad():
            for name, weight in _trained(model):
                weight.copy_(self._kept[name])


def _trained(model: Any) -> list[tuple[str, torch.Tensor]]:
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


def greedy_answers(
    model: Any, tokenizer: Any, prompts: list[list[dict[str, str]]], max_tokens: int
) -> list[str]:
    """The model's most likely answer to each prompt, token by token; dropout is off."""
    was_training = model.training
    model.eval()
    answers = []
    for start in range(0, len(prompts), NUM_PROMPTS_AT_ONCE):
        chunk = prompts[start : start + NUM_PROMPTS_AT_ONCE]
        answers += _answer_batch(model, tokenizer, chunk, max_tokens)
    model.train(was_training)
    return answers


def _answer_batch(
    model: Any, tokenizer: Any, prompts: list[list[dict[str, str]]], max_tokens: int
) -> list[str]:
    batch = tokenizer.apply_chat_template(
        prompts,
        add_generation_prompt=True,
        padding=True,
        tokenizer_kwargs={"padding_side": "left"},
        return_tensors="pt",
        return_dict=True,
    ).to(model.device)
    with torch.no_grad():
        whole_BT = model.generate(
            **batch, do_sample=False, max_new_tokens=max_tokens, use_cache=True
        )
    answers_BT = whole_BT[:, batch["input_ids"].shape[1] :]
    decoded: list[str] = tokenizer.batch_decode(answers_BT, skip_special_tokens=True)
    return decoded
