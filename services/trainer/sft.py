"""Supervised fine-tuning with TRL, in a child process. Yuan et al., section 3.1.2, for the values.

The task names `base`, `output`, `config`, `seed` and `examples`, each a `prompt` (messages)
and a `completion` (text), with a `kind` ("ift", "eft", "winner") and `is_cut` where
`sampling.max_tokens` cut it; and may name `adapter` (see `adapters`), `schedule`, "cosine" as
in the paper's SFT (left out) or "linear" as in its DPO, for SFT on the winners in DPO's place,
and `early_stopping`.

The loss is the negative log-likelihood of the completion, and of the token that ends a turn
behind it, given the prompt: over the N tokens of completions in one optimizer step,
L = -(1/N) sum log pi(token | what stands before it), in nats per token. A completion that
was cut, by `max_tokens` or by `max_length`, has no end and teaches none.

Of each step's random batch, examples of like length share a forward pass (`parts`), and only
tokens of completions are projected on to the vocabulary (`answers_forward`).
"""

from pathlib import Path
from typing import Any, TextIO

from datasets import Dataset
from transformers import AutoTokenizer, set_seed
from trl import SFTConfig, SFTTrainer

from services.trainer import answers_forward, early_stopping, memory, optimisation, resumable
from services.trainer.adapters import load_policy, save
from services.trainer.child import open_channel, reported_errors
from services.trainer.grouping import Limit
from services.trainer.parts import InParts
from services.trainer.resumable import Resumable
from services.trainer.rows import Maker

PLACEHOLDER = {"input_ids": [0], "labels": [0]}


class ExampleTrainer(Resumable, InParts, SFTTrainer):  # type: ignore[misc]
    """TRL's, stopped where it diverges and gone on with where it was stopped."""

    def __init__(self, *args: Any, limit: Limit, **kwargs: Any) -> None:
        self.limit = limit
        super().__init__(*args, **kwargs)
        answers_forward.install(self.model)


def main() -> None:
    task, channel = open_channel()
    with reported_errors(channel):
        train(task, channel)


def train(task: dict[str, Any], channel: TextIO) -> None:
    """Train M_t on `task["examples"]` and write what was trained to `task["output"]`.

    Where the task names a folder `state`, training goes on from what is saved there, and ends
    without a model where it is asked to stop.
    """
    trainer = build(task, channel)
    if resumable.run(trainer, channel):
        model, tokenizer = trainer.model, trainer.processing_class
        del trainer  # and its optimizer with it: writing the model needs the GPU's memory
        save(model, tokenizer, task)


def build(task: dict[str, Any], channel: TextIO) -> SFTTrainer:
    """TRL's trainer for the task, its examples tokenised.

    Raises:
        ValueError: there are no examples. Where none is left to learn from, the trainer's
            `train` raises it.
    """
    config = task["config"]
    states = resumable.states_of(task, channel)
    set_seed(task["seed"])
    tokenizer = AutoTokenizer.from_pretrained(task["base"])
    model, new_adapters = load_policy(task)
    examples, ledger = optimisation.made_rows(
        Maker.examples, task["examples"], model, tokenizer, config, channel
    )
    passes = optimisation.passes_of(config, model, states)
    trainer = ExampleTrainer(
        limit=passes.limit,
        model=model,
        args=_arguments(task, max(1, len(examples)), passes),
        train_dataset=Dataset.from_list(examples or [PLACEHOLDER]),
        processing_class=tokenizer,
        peft_config=new_adapters,
        callbacks=[
            optimisation.Reporter(channel, {"forward_passes": passes.told()}),
            *early_stopping.callbacks(task, tokenizer, channel),
        ],
    )
    resumable.prepare(trainer, task, states, channel)
    return trainer if examples else optimisation.emptied(trainer, ledger.nothing_left())


def _arguments(task: dict[str, Any], num_examples: int, passes: memory.Passes) -> SFTConfig:
    config = task["config"]
    return SFTConfig(
        **optimisation.arguments(config, num_examples, task["seed"], Path(task["output"])),
        **optimisation.schedule(task.get("schedule", "cosine"), config["learning_rate_floor"]),
        completion_only_loss=True,
        packing=False,
        gradient_checkpointing=passes.gradient_checkpointing,
    )


if __name__ == "__main__":
    main()
