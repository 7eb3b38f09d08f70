"""Stops training once the model's answers no longer win (Yuan et al., section 3.1.2).

Before the first step, then every so many steps and at the last one, the model answers the
validation prompts; the parent compares these answers with those of the check before and
says whether to go on. Invariant: what training leaves in the model are the weights of the
last check that was told to go on.

The kept weights lie in main memory: one float32 copy of what is trained. Knows neither
how answers are compared nor what the loss is.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from rewardloop.chat_tokens import TemplateRefused, prompt_ids
from services.trainer.child import ask, report
from services.trainer.greedy import continuations
from services.trainer.template import stop_ids

NOTHING_KEPT = (
    "no step was kept: the new version has the weights of the one that it was trained from"
)
NUM_PROMPTS_AT_ONCE = 16
"""Prompts that are answered as one padded batch."""
WEIGHTS_FILE = "early_stopping.safetensors"
CHECK_FILE = "early_stopping.json"


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
        self._kept_answers: list[str] | None = None

    def write_to(self, folder: Path) -> None:
        """What the next checks need, as part of a saved state."""
        save_file(self._kept, folder / WEIGHTS_FILE)
        said = {"kept_step": self._kept_step, "kept_answers": self._kept_answers}
        (folder / CHECK_FILE).write_text(json.dumps(said))

    def read_from(self, folder: Path) -> None:
        said = json.loads((folder / CHECK_FILE).read_text())
        self._kept = load_file(folder / WEIGHTS_FILE)
        self._kept_step, self._kept_answers = said["kept_step"], said["kept_answers"]

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        refused = len(self._settings["prompts"]) - len(
            _shown(self._tokenizer, self._settings["prompts"])
        )
        if refused:
            report(self._channel, num_validation_prompts_refused_by_template=refused)
        if self._kept_answers is None:  # else training goes on from a saved state
            # There is no check before this one, so its answer can only be to go on.
            self._wins(model, step=0)

    def on_step_end(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        step = state.global_step
        if step % self._settings["every_num_steps"] and step != state.max_steps:
            return
        if self._wins(model, step):
            return
        self._restore(model)
        control.should_training_stop = True
        report(self._channel, stopped_at=step, kept_step=self._kept_step)
        if self._kept_step == 0:
            report(self._channel, outcome=NOTHING_KEPT)

    def _wins(self, model: Any, step: int) -> bool:
        """Ask whether the model's answers win against the kept ones; keep it where they do."""
        answers = greedy_answers(
            model, self._tokenizer, self._settings["prompts"], self._settings["max_tokens"]
        )
        against = {} if self._kept_answers is None else {"against": self._kept_answers}
        said = ask(self._channel, validation={"step": step, "answers": answers, **against})
        if not said["go_on"]:
            return False
        self._kept = {
            name: weight.detach().to("cpu", copy=True) for name, weight in _trained(model)
        }
        self._kept_step, self._kept_answers = step, answers
        return True

    def _restore(self, model: Any) -> None:
        with torch.no_grad():
            for name, weight in _trained(model):
                weight.copy_(self._kept[name])


def _trained(model: Any) -> list[tuple[str, torch.Tensor]]:
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


def greedy_answers(
    model: Any, tokenizer: Any, prompts: list[list[dict[str, str]]], max_tokens: int
) -> list[str]:
    """The model's most likely answer to each prompt, token by token; dropout is off.

    A prompt that the chat template refuses has an empty answer.
    """
    shown = _shown(tokenizer, prompts)
    places = list(shown)
    answers = [""] * len(prompts)
    was_training = model.training
    model.eval()
    for start in range(0, len(places), NUM_PROMPTS_AT_ONCE):
        chunk = places[start : start + NUM_PROMPTS_AT_ONCE]
        written = _answer_batch(model, tokenizer, [shown[n] for n in chunk], max_tokens)
        for place, answer in zip(chunk, written, strict=True):
            answers[place] = answer
    model.train(was_training)
    return answers


def _shown(tokenizer: Any, prompts: list[list[dict[str, str]]]) -> dict[int, list[int]]:
    """Token ids of the prompts that the chat template takes, by their place."""
    found = {}
    for place, prompt in enumerate(prompts):
        with suppress(TemplateRefused):
            found[place] = prompt_ids(tokenizer, prompt)
    return found


def _answer_batch(
    model: Any, tokenizer: Any, prompts: list[list[int]], max_tokens: int
) -> list[str]:
    """The answers' texts as an engine writes them: without special tokens, and without the end."""
    stops = stop_ids(model, tokenizer)
    found = continuations(model, tokenizer, prompts, max_tokens)
    ended = [tokens[:-1] if tokens and tokens[-1] in stops else tokens for tokens in found]
    decoded: list[str] = tokenizer.batch_decode(ended, skip_special_tokens=True)
    return decoded
