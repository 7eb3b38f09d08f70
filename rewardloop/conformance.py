"""Every value of the paper beside what a run's config says. Pure.

Source: Yuan et al., arXiv 2401.10020, sections 2 and 3.1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rewardloop.config import RunConfig


@dataclass(frozen=True, slots=True)
class PaperValue:
    """One published value."""

    key: str
    """Dotted key of the run's config, or `report.<subject>.<count>` of what was found."""
    what: str
    paper: tuple[Any, ...]
    """What the paper says; several where it can be read in several ways."""


PAPER = (
    PaperValue("report.ift.num_examples", "IFT examples", (3200,)),
    PaperValue("report.eft.num_kept", "EFT examples for training", (1630, 1775)),
    PaperValue("bootstrap.ift.learning_rate", "SFT learning rate", (5.5e-6,)),
    PaperValue("bootstrap.ift.learning_rate_floor", "SFT learning rate at the end", (1.1e-6,)),
    PaperValue("bootstrap.ift.batch_size", "SFT batch", (16,)),
    PaperValue("bootstrap.ift.dropout", "SFT dropout", (0.1,)),
    PaperValue("bootstrap.ift.weights.kind", "SFT weights", ("full",)),
    PaperValue("bootstrap.ift_and_eft.learning_rate", "M1 learning rate", (5.5e-6,)),
    PaperValue(
        "bootstrap.ift_and_eft.learning_rate_floor", "M1 learning rate at the end", (1.1e-6,)
    ),
    PaperValue("bootstrap.ift_and_eft.batch_size", "M1 batch", (16,)),
    PaperValue("bootstrap.ift_and_eft.dropout", "M1 dropout", (0.1,)),
    PaperValue("bootstrap.eft.judging.mode", "how the SFT baseline judges", ("free",)),
    PaperValue("prompts.self_instruct.num_human_shots", "shots from IFT", (6,)),
    PaperValue("prompts.self_instruct.num_generated_shots", "generated shots", (2,)),
    PaperValue("prompts.self_instruct.temperature", "prompt model's temperature", (0.6,)),
    PaperValue("prompts.self_instruct.top_p", "prompt model's top-p", (0.9,)),
    PaperValue("sampling.num_samples", "answers a prompt", (4,)),
    PaperValue("sampling.temperature", "sampling temperature", (0.7,)),
    PaperValue("sampling.top_p", "sampling top-p", (0.9,)),
    PaperValue("judging.num_judgements", "judgements an answer", (3,)),
    PaperValue("judging.mode", "how the model judges", ("free",)),
    PaperValue("pairing.policy.kind", "pairs", ("best_worst",)),
    PaperValue("pairing.min_margin", "least margin of a pair", (0.0,)),
    PaperValue("training.loss.kind", "loss", ("dpo",)),
    PaperValue("training.learning_rate", "DPO learning rate", (1e-6,)),
    PaperValue("training.learning_rate_floor", "DPO learning rate at the end", (1e-7,)),
    PaperValue("training.batch_size", "DPO batch", (16,)),
    PaperValue("training.dropout", "DPO dropout", (0.1,)),
    PaperValue("training.beta", "beta", (0.1,)),
    PaperValue("training.weights.kind", "DPO weights", ("full",)),
    PaperValue("training.early_stopping.every_num_steps", "steps between checks", (200,)),
    PaperValue("training.early_stopping.num_prompts", "validation prompts", (253,)),
    PaperValue("evaluation.num_prompts", "head-to-head prompts", (256,)),
)


def conformance(config: RunConfig, report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a value: `key`, `what`, `paper`, `ran` and whether it `deviates`.

    `report` holds the bootstrap's findings by subject. A part of the method that did not
    run is a deviation with `ran` None.
    """
    ran = {**config.model_dump(mode="json"), "report": report}
    return [
        {
            "key": value.key,
            "what": value.what,
            "paper": " or ".join(str(v) for v in value.paper),
            "ran": (found := _look_up(ran, value.key)),
            "deviates": found not in value.paper,
        }
        for value in PAPER
    ]


def _look_up(tree: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            return None
        tree = tree[part]
    return tree
