"""Every value of the paper beside what a run ran with. Pure.

What ran is what the config says, but for what the data or the trainer decided otherwise: a
dataset may hold fewer prompts than were asked for, a batch fewer pairs. Invariant: a value
is called the same only where nothing that is known says that it was another.

Source: Yuan et al., arXiv 2401.10020, sections 2 and 3.1.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rewardloop.config import RunConfig, WinnersOnly
from rewardloop.method.rubrics import rubric_text


@dataclass(frozen=True, slots=True)
class PaperValue:
    """One published value."""

    key: str
    """Dotted key of the run's config, or `report.<subject>...` of what was found."""
    what: str
    paper: tuple[Any, ...]
    """What the paper says; several where it can be read in several ways."""


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of a run beside its config; what is not known yet is left out."""

    bootstrap: Mapping[str, Any] = field(default_factory=dict)
    """The bootstrap's report, by subject."""
    improvements: Sequence[Mapping[str, Any]] = ()
    """The reports of the iterations after it, in their order."""
    num_held_out: int | None = None
    """Ranked prompts."""
    dataset_sizes: Mapping[str, int] = field(default_factory=dict)
    """Prompts of each dataset."""
    judges: Sequence[str] = ()
    """Models that judged the head to heads."""


OWN_MODEL, BASE_VERSION = "a fixed model of its own", "the base version"

PAPER = (
    PaperValue("base_version", "M0", ("Llama 2 70B",)),
    PaperValue("report.num_iterations", "iterations after M1", (2,)),
    PaperValue("report.ift.num_examples", "IFT examples", (3200,)),
    PaperValue("report.eft.num_kept", "EFT examples for training", (1630, 1775)),
    PaperValue("report.held_out.num_prompts", "ranked prompts held out", (531, 541)),
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
    PaperValue("bootstrap.ift_and_eft.weights.kind", "M1 weights", ("full",)),
    PaperValue("bootstrap.eft.judging.mode", "how the SFT baseline judges", ("free",)),
    PaperValue("report.prompt_model", "who writes new prompts", (OWN_MODEL,)),
    PaperValue("prompts.self_instruct.num_human_shots", "shots from IFT", (6,)),
    PaperValue("prompts.self_instruct.num_generated_shots", "generated shots", (2,)),
    PaperValue("prompts.self_instruct.temperature", "prompt model's temperature", (0.6,)),
    PaperValue("prompts.self_instruct.top_p", "prompt model's top-p", (0.9,)),
    PaperValue("sampling.num_samples", "answers a prompt", (4,)),
    PaperValue("sampling.temperature", "sampling temperature", (0.7,)),
    PaperValue("sampling.top_p", "sampling top-p", (0.9,)),
    PaperValue("judging.rubric", "what the judge is asked", ("additive",)),
    PaperValue("judging.num_judgements", "judgements an answer", (3,)),
    PaperValue("judging.mode", "how the model judges", ("free",)),
    PaperValue("pairing.policy.kind", "pairs", ("best_worst",)),
    PaperValue("pairing.min_margin", "least margin of a pair", (0.0,)),
    PaperValue("report.m2.num_pairs", "pairs that M2 learns from", (3964,)),
    PaperValue("report.m3.num_pairs", "pairs that M3 learns from", (6942,)),
    PaperValue("training.loss.kind", "loss", ("dpo",)),
    PaperValue("training.learning_rate", "DPO learning rate", (1e-6,)),
    PaperValue("training.learning_rate_floor", "DPO learning rate at the end", (1e-7,)),
    PaperValue("training.batch_size", "DPO batch", (16,)),
    PaperValue("training.dropout", "DPO dropout", (0.1,)),
    PaperValue("training.beta", "beta", (0.1,)),
    PaperValue("training.weights.kind", "DPO weights", ("full",)),
    PaperValue("training.early_stopping.every_num_steps", "steps between checks", (200,)),
    PaperValue("training.early_stopping.num_prompts", "validation prompts", (253,)),
    PaperValue("training.early_stopping.mode", "how validation is judged", ("free",)),
    PaperValue("evaluation.num_prompts", "head-to-head prompts", (256,)),
    PaperValue("evaluation.mode", "how head to heads are judged", ("free",)),
    PaperValue("report.judges", "judge of the head to heads", ("GPT-4",)),
)


def conformance(config: RunConfig, found: Found) -> list[dict[str, Any]]:
    """One row a value: `key`, `what`, `paper`, `ran` and whether it `deviates`.

    A part of the method that did not run, or has not yet, is a deviation with `ran` None.
    """
    tree = _ran(config, found)
    return [
        {
            "key": value.key,
            "what": value.what,
            "paper": " or ".join(str(v) for v in value.paper),
            "ran": (ran := _look_up(tree, value.key)),
            "deviates": _plain(ran) not in map(_plain, value.paper),
        }
        for value in PAPER
    ]


def _ran(config: RunConfig, found: Found) -> dict[str, Any]:
    """The config as it came out, and under `report` what was found."""
    ran = config.model_dump(mode="json")
    training, bootstrap = ran["training"], ran["bootstrap"]
    if not isinstance(config.judging.rubric, str):
        ran["judging"]["rubric"] = rubric_text(config.judging.rubric).version
    trained = [report.get("training_model", {}) for report in found.improvements]
    _note_batch(training, *trained)
    if isinstance(config.training.loss, WinnersOnly):
        training["beta"] = None
    if bootstrap is None:
        ran["base_version"] = None  # it is the run's M1
    else:
        _note_batch(bootstrap["ift"], found.bootstrap.get("training_baseline", {}))
        _note_batch(bootstrap["ift_and_eft"], found.bootstrap.get("training_model", {}))
    for part in (ran["evaluation"], training["early_stopping"]):
        if part is not None and part["dataset"] in found.dataset_sizes:
            part["num_prompts"] = min(part["num_prompts"], found.dataset_sizes[part["dataset"]])
    return {**ran, "report": _report(found)}


def _note_batch(stage: dict[str, Any], *reports: Mapping[str, Any]) -> None:
    """The trainer makes a smaller batch of fewer rows, and says so."""
    sizes = sorted({report["batch_size"] for report in reports if "batch_size" in report})
    if sizes:
        stage["batch_size"] = sizes[0] if len(sizes) == 1 else ", ".join(map(str, sizes))


def _report(found: Found) -> dict[str, Any]:
    pairs = {
        f"m{number}": {"num_pairs": _learnt_from(report, "pairing", "num_pairs", "training_model")}
        for number, report in enumerate(found.improvements, start=2)
    }
    own = {
        report["prompt_model"]["is_own"]
        for report in found.improvements
        if "prompt_model" in report
    }
    return pairs | {
        "num_iterations": len(found.improvements) or None,
        "ift": {
            "num_examples": _learnt_from(
                found.bootstrap, "ift", "num_examples", "training_baseline"
            )
        },
        "eft": {"num_kept": _learnt_from(found.bootstrap, "eft", "num_kept", "training_model")},
        "held_out": {"num_prompts": found.num_held_out},
        "prompt_model": (OWN_MODEL if own == {True} else BASE_VERSION) if own else None,
        "judges": ", ".join(found.judges) or None,
    }


def _learnt_from(report: Mapping[str, Any], subject: str, key: str, stage: str) -> int | None:
    """A count less the rows that the training left out, their prompts being too long.

    M1's are IFT and EFT examples together; they count as EFT, whose prompts are the longer.
    """
    num: int | None = report.get(subject, {}).get(key)
    return None if num is None else num - int(report.get(stage, {}).get("num_dropped", 0))


def _plain(value: Any) -> Any:
    """A name without its spelling: a version's id has no blanks."""
    return re.sub(r"[^a-z0-9]", "", value.lower()) if isinstance(value, str) else value


def _look_up(tree: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            return None
        tree = tree[part]
    return tree
