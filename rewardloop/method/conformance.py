"""Every value of the paper beside what a run ran with. Pure.

What ran is what the config says, but for what the data or the trainer decided otherwise: a
dataset may hold fewer prompts than were asked for, a batch fewer pairs. Invariant: a value is
"same" unless evidence contradicts. A part of the method that a run leaves out deviates once, as
a whole; the values inside it do not apply.

Source: Yuan et al., arXiv 2401.10020, sections 2 and 3.1.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from rewardloop.config import RunConfig, WinnersOnly
from rewardloop.method.rubrics import rubric_text
from rewardloop.records import JudgementMode


class Verdict(StrEnum):
    SAME = "same"
    DEVIATES = "deviates"
    NOT_GIVEN = "not given"
    """The paper gives no value, so nothing can be compared."""
    NOT_APPLICABLE = "does not apply"
    """The value belongs to a part of the method that the run leaves out."""
    NOT_RUN = "not run"
    """What the value is read from has not run, or has not run yet."""


@dataclass(frozen=True, slots=True)
class PaperValue:
    """One published value."""

    key: str
    """Dotted key of the run's config, or `report.<subject>...` of what was found."""
    what: str
    paper: tuple[Any, ...]
    """What the paper says; several where it can be read in several ways, none where it gives
    none."""


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
SHARED, KEPT_APART = "shared", "kept apart"

PARTS = {
    "bootstrap": ("base_version", "report.ift", "report.eft", "report.held_out"),
    "prompts.self_instruct": ("report.prompt_model",),
    "training.early_stopping": (),
    "evaluation": ("report.judges",),
}
"""Parts of the method that a run may leave out, by their keys, and values beside those under the
key that mean nothing without the part."""

SAMPLED = frozenset(
    f"judging.{name}" for name in ("num_judgements", "temperature", "top_p", "max_reasks")
)
"""Values of judgements that are sampled. In mode `expected`, which deviates itself, none is."""

PAPER = (
    PaperValue("bootstrap", "M1 is made from a pretrained M0", ("yes",)),
    PaperValue("base_version", "M0", ("Llama 2 70B",)),
    PaperValue("report.num_iterations", "iterations after M1", (2,)),
    PaperValue("report.ift.num_examples", "IFT examples", (3200,)),
    PaperValue("report.eft.num_kept", "EFT examples for training", (1630, 1775)),
    PaperValue("report.held_out.num_prompts", "ranked prompts held out", (531, 541)),
    PaperValue("bootstrap.ift.learning_rate", "SFT learning rate", (5.5e-6,)),
    PaperValue("bootstrap.ift.learning_rate_floor", "SFT learning rate at the end", (1.1e-6,)),
    PaperValue("bootstrap.ift.batch_size", "SFT batch", (16,)),
    PaperValue("bootstrap.ift.dropout", "SFT dropout", (0.1,)),
    PaperValue("bootstrap.ift.max_gradient_norm", "SFT gradient norm at most", ()),
    PaperValue("bootstrap.ift.weights.kind", "SFT weights", ("full",)),
    PaperValue("bootstrap.ift_and_eft.learning_rate", "M1 learning rate", (5.5e-6,)),
    PaperValue(
        "bootstrap.ift_and_eft.learning_rate_floor", "M1 learning rate at the end", (1.1e-6,)
    ),
    PaperValue("bootstrap.ift_and_eft.batch_size", "M1 batch", (16,)),
    PaperValue("bootstrap.ift_and_eft.dropout", "M1 dropout", (0.1,)),
    PaperValue("bootstrap.ift_and_eft.max_gradient_norm", "M1 gradient norm at most", ()),
    PaperValue("bootstrap.ift_and_eft.weights.kind", "M1 weights", ("full",)),
    PaperValue("bootstrap.share_rankings", "prompts of IFT and EFT", (KEPT_APART,)),
    PaperValue("bootstrap.eft.judging.mode", "how the SFT baseline judges", ("free",)),
    PaperValue("prompts.self_instruct", "new prompts are written", ("yes",)),
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
    PaperValue("judging.temperature", "judge's temperature", (0.7,)),
    PaperValue("judging.top_p", "judge's top-p", (0.9,)),
    PaperValue("judging.mode", "how the model judges", ("free",)),
    PaperValue("judging.max_reasks", "unscored judgements are asked for again", ()),
    PaperValue("lag", "versions that answers are older than what is trained on them", (0,)),
    PaperValue("pairing.policy.kind", "pairs", ("best_worst",)),
    PaperValue("pairing.min_margin", "least margin of a pair", (0.0,)),
    PaperValue("report.m2.num_pairs", "pairs that M2 learns from", (3964,)),
    PaperValue("report.m3.num_pairs", "pairs that M3 learns from", (6942,)),
    PaperValue("training.loss.kind", "loss", ("dpo",)),
    PaperValue("training.learning_rate", "DPO learning rate", (1e-6,)),
    PaperValue("training.learning_rate_floor", "DPO learning rate at the end", (1e-7,)),
    PaperValue("training.batch_size", "DPO batch", (16,)),
    PaperValue("training.dropout", "DPO dropout", (0.1,)),
    PaperValue("training.max_gradient_norm", "DPO gradient norm at most", ()),
    PaperValue("report.optimiser", "optimiser", ()),
    PaperValue("training.beta", "beta", (0.1,)),
    PaperValue("training.weights.kind", "DPO weights", ("full",)),
    PaperValue("training.early_stopping", "training stops early", ("yes",)),
    PaperValue("training.early_stopping.every_num_steps", "steps between checks", (200,)),
    PaperValue("training.early_stopping.num_prompts", "validation prompts", (253,)),
    PaperValue("training.early_stopping.mode", "how validation is judged", ("free",)),
    PaperValue("evaluation", "versions meet head to head", ("yes",)),
    PaperValue("evaluation.num_prompts", "head-to-head prompts", (256,)),
    PaperValue("evaluation.mode", "how head to heads are judged", ("free",)),
    PaperValue("report.judges", "judge of the head to heads", ("GPT-4",)),
)


def conformance(config: RunConfig, found: Found) -> list[dict[str, Any]]:
    """One row a value: `key`, `what`, `paper`, `ran`, the `verdict`, and whether that is that
    it `deviates`. What does not apply or has not run is no deviation, with `ran` None."""
    tree = _ran(config, found)
    return [_row(value, tree) for value in PAPER]


def _row(value: PaperValue, tree: Mapping[str, Any]) -> dict[str, Any]:
    ran = _look_up(tree, value.key)
    if value.key in PARTS:
        ran = "no" if ran is None else "yes"
    verdict = _verdict(value, ran, tree)
    return {
        "key": value.key,
        "what": value.what,
        "paper": " or ".join(str(v) for v in value.paper) or "not given",
        "ran": ran,
        "verdict": verdict,
        "deviates": verdict is Verdict.DEVIATES,
    }


def _verdict(value: PaperValue, ran: Any, tree: Mapping[str, Any]) -> Verdict:
    if not _applies(value.key, tree):
        return Verdict.NOT_APPLICABLE
    if ran is None and value.key.startswith("report."):
        return Verdict.NOT_RUN
    if not value.paper:
        return Verdict.NOT_GIVEN
    return Verdict.SAME if _plain(ran) in map(_plain, value.paper) else Verdict.DEVIATES


def _applies(key: str, tree: Mapping[str, Any]) -> bool:
    if key == "training.beta":  # nothing to SFT on the winners
        return _look_up(tree, key) is not None
    if key in SAMPLED and _look_up(tree, "judging.mode") == JudgementMode.EXPECTED:
        return False
    return all(
        _look_up(tree, part) is not None
        for part, others in PARTS.items()
        if any(key.startswith(f"{under}.") for under in (part, *others)) or key in others
    )


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
        bootstrap["share_rankings"] = SHARED if bootstrap["share_rankings"] else KEPT_APART
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
        "optimiser": _optimiser(found),
    }


def _optimiser(found: Found) -> str | None:
    """What the trainer said it used, in all trainings; the config names none of it."""
    stages = [found.bootstrap.get("training_baseline", {}), found.bootstrap.get("training_model")]
    stages += [report.get("training_model") for report in found.improvements]
    told = [stage["optimiser"] for stage in stages if stage and "optimiser" in stage]
    named = {
        f"{o['optim']}, betas {o['adam_beta1']} and {o['adam_beta2']}, epsilon "
        f"{o['adam_epsilon']}, weight decay {o['weight_decay']}, {o['warmup_steps']} warm-up steps"
        for o in told
    }
    return "; ".join(sorted(named)) or None


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
