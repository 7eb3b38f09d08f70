"""DPO with TRL, in a child process. Yuan et al., section 3.1.2, for the values.

The task names `base`, `output`, `config`, `seed` and `pairs`, and may name `adapter` (see
`adapters`), `label_smoothing`, `early_stopping`, and `reference`: the `folder` where
log-probabilities of the reference are kept and what says which weights it has (`base`). A pair
is TRL's conversational preference format, with `chosen_is_cut` and `rejected_is_cut` where
`sampling.max_tokens` cut a side. The reference is M_t, its log-probabilities computed once
before training: that spares a forward pass per step and a copy of the weights.

TRL's `disable_dropout=True` would cancel the dropout of models that hold it in modules
(Llama's is a number of its attention, which TRL does not touch): it is off.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import torch
from datasets import Dataset, concatenate_datasets
from transformers import AutoTokenizer, set_seed
from trl import DPOConfig, DPOTrainer

from services.trainer import (
    answers_forward,
    early_stopping,
    memory,
    optimisation,
    reference,
    resumable,
)
from services.trainer.adapters import load_policy, save
from services.trainer.child import open_channel, reported_errors
from services.trainer.grouping import Limit
from services.trainer.kept_logps import KeptLogps
from services.trainer.parts import Batch, InParts
from services.trainer.resumable import Resumable
from services.trainer.rows import Maker
from services.trainer.unhashed import unhashed

REFERENCE = "ref"
"""TRL's name for the copy that it makes of an adapter that is trained on."""
PLACEHOLDER = {"prompt_ids": [0], "chosen_ids": [0], "rejected_ids": [0]}


class PairTrainer(Resumable, InParts, DPOTrainer):  # type: ignore[misc]
    """Takes pairs as token ids. TRL 1.16's SFT takes rows that are tokenised, its DPO does not,
    so the step that would render and encode them is left out."""

    num_sides = 2

    def __init__(
        self,
        *args: Any,
        limit: Limit,
        kept: dict[str, str] | None,
        told: dict[str, Any],
        **kwargs: Any,
    ) -> None:
        self.limit = limit
        self._kept = KeptLogps(Path(kept["folder"])) if kept else None
        self._base = kept["base"] if kept else ""
        self.told = told
        """What the reporter tells with the training."""
        super().__init__(*args, **kwargs)

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """TRL calls it where its trainer is ready but for this."""
        pairs = dataset.to_list()
        self.model.eval()
        why_not = answers_forward.why_not_shared(self.model, self._shortest(pairs))
        if why_not is not None:
            self.told["prompts_not_shared"] = why_not
        answers_forward.install(self.model, shares_prompts=why_not is None)
        columns, self.told["num_reference_logps_known"] = reference.logps_of(
            self._kept, self._made_by(), pairs, self.limit, self._logps
        )
        if REFERENCE in getattr(self.model, "peft_config", {}):
            self.model.delete_adapter(REFERENCE)  # else each saved state would hold it too
        return concatenate_datasets([dataset, Dataset.from_dict(columns)], axis=1)

    def _shortest(self, pairs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        pair = min(pairs, key=lambda one: sum(map(len, one.values())))
        batch: dict[str, torch.Tensor] = self._prepare_inputs(self.data_collator([pair]))
        labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
        return {**batch, "labels": labels}

    def _made_by(self) -> bytes:
        how = [self._base, str(self.model.dtype), self.args.bf16, self.args.device.type]
        return json.dumps([*how, version("torch"), version("transformers")]).encode()

    def _logps(self, pairs: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
        batch = self._prepare_inputs(self.data_collator(pairs))
        chosen, rejected = self.compute_ref_log_probs(self.model, batch)
        return chosen.tolist(), rejected.tolist()

    @contextmanager
    def _as_part(self, part: Batch, batch: Batch) -> Iterator[None]:
        """The terms are means over pairs; "sft" is one over tokens of chosen answers."""
        whole: list[float] = self.loss_weights  # type: ignore[has-type]
        of_pairs = part.num_rows / batch.num_rows
        of_tokens = part.num_answer_tokens(0) / batch.num_answer_tokens(0)
        self.loss_weights = [
            weight * (of_tokens if kind == "sft" else of_pairs)
            for kind, weight in zip(self.loss_types, whole, strict=True)
        ]
        try:
            yield
        finally:
            self.loss_weights = whole


def main() -> None:
    task, channel = open_channel()
    with reported_errors(channel):
        train(task, channel)


def train(task: dict[str, Any], channel: TextIO) -> None:
    """Train M_t on `task["pairs"]` and write what was trained to `task["output"]`.

    Where the task names a folder `state`, training goes on from what is saved there, and ends
    without a model where it is asked to stop.
    """
    trainer = build(task, channel)
    if resumable.run(trainer, channel):
        model, tokenizer = trainer.model, trainer.processing_class
        del trainer  # and its optimizer with it: writing the model needs the GPU's memory
        save(model, tokenizer, task)


@unhashed()
def build(task: dict[str, Any], channel: TextIO) -> DPOTrainer:
    """TRL's trainer for the task, its pairs tokenised and the reference computed.

    Raises:
        ValueError: there are no pairs, or the loss is not one of ours. Where no pair is left
            to learn from, the trainer's `train` raises it.
    """
    config = task["config"]
    states = resumable.states_of(task, channel)
    set_seed(task["seed"])
    tokenizer = AutoTokenizer.from_pretrained(task["base"])
    model, new_adapters = load_policy(task)
    pairs, ledger = optimisation.made_rows(
        Maker.pairs, task["pairs"], model, tokenizer, config, channel
    )
    passes = optimisation.passes_of(config, model, states)
    told: dict[str, Any] = {"forward_passes": passes.told()}
    trainer = PairTrainer(
        limit=passes.limit,
        kept=task.get("reference"),
        told=told,
        model=model,
        args=_arguments(task, max(1, len(pairs)), passes),
        train_dataset=Dataset.from_list(pairs or [PLACEHOLDER]),
        processing_class=tokenizer,
        peft_config=new_adapters,
        callbacks=[
            optimisation.Reporter(channel, told),
            *early_stopping.callbacks(task, tokenizer, channel),
        ],
    )
    resumable.prepare(trainer, task, states, channel)
    return trainer if pairs else optimisation.emptied(trainer, ledger.nothing_left())


def _arguments(task: dict[str, Any], num_pairs: int, passes: memory.Passes) -> DPOConfig:
    config = task["config"]
    return DPOConfig(
        **optimisation.arguments(config, num_pairs, task["seed"], Path(task["output"])),
        **optimisation.schedule("linear", config["learning_rate_floor"]),
        **loss_arguments(config, task.get("label_smoothing", 0.0)),
        gradient_checkpointing=passes.gradient_checkpointing,
        disable_dropout=False,
        precompute_ref_log_probs=True,
    )


def loss_arguments(config: dict[str, Any], label_smoothing: float = 0.0) -> dict[str, Any]:
    """TRL's names for the loss of a pair, in nats (Rafailov et al., equation 7).

    With h = beta [(log pi(c) - log ref(c)) - (log pi(r) - log ref(r))], each log-probability
    the sum over the response's tokens, and e the label smoothing (the probability that the
    label is wrong):

        L = -(1 - e) log sigmoid(h) - e log sigmoid(-h)

    averaged over the pairs of a step. With likelihood (Iterative RPO, equation 1) the term
    -weight * log pi(c) / |c| is added. TRL's "sft" takes that mean over the tokens of all chosen
    answers together, the end-of-turn tokens with them, so long answers count more than in the
    paper; `PairTrainer` sees to it that it is one mean over the whole optimizer batch.

    TRL's `label_smoothing` does not act on "sigmoid". It acts on "robust", which with the
    smoothing q is [(1 - q) L+ - q L-] / (1 - 2q), L+ and L- being the loss of the label as it
    stands and turned around; it sharpens where we soften. At q = 1/4 that is (3 L+ - L-) / 2,
    so L = (1 + 2e) sigmoid - 2e robust, exactly.

    Raises:
        ValueError: the smoothing is not from 0 to 0.5, or the loss is not a DPO loss.
    """
    if not 0 <= label_smoothing <= 0.5:
        raise ValueError(
            f"label_smoothing {label_smoothing} is not from 0 to 0.5: "
            "above 0.5 the labels should be turned around instead"
        )
    kind = config["loss"]["kind"]
    if kind not in ("dpo", "dpo_likelihood"):
        raise ValueError(f"{kind!r} is not a DPO loss; services.trainer.sft trains on winners")
    weights = {"sigmoid": 1.0}
    if label_smoothing:
        weights = {"sigmoid": 1 + 2 * label_smoothing, "robust": -2 * label_smoothing}
    if kind == "dpo_likelihood":
        weights["sft"] = config["loss"]["weight"]
    return {
        "beta": config["beta"],
        "loss_type": list(weights),
        "loss_weights": list(weights.values()),
        "label_smoothing": 0.25,  # the q above; "sigmoid" and "sft" do not read it
    }


if __name__ == "__main__":
    main()
