"""Reads the API's report without stumbling over what is missing, and says why it is. Pure.

A young or failed run lacks parts; every function here takes any of them as null or absent.
"""

from collections.abc import Mapping
from typing import Any

from rewardloop.records import IterationKind, IterationState, Purpose
from rewardloop.report.wording import plain, spaced

Tree = Mapping[str, Any]

_LISTS = ("conformance", "versions", "assessments", "iterations", "evaluations")


def complete(data: Tree) -> dict[str, Any]:
    """The same with every part there, empty where it was null or missing."""
    return {"run": data.get("run") or {}} | {key: data.get(key) or [] for key in _LISTS}


def dig(tree: Any, *keys: str) -> Any:
    """The value under nested keys; None where one of them is missing."""
    for key in keys:
        if not isinstance(tree, Mapping):
            return None
        tree = tree.get(key)
    return tree


def is_bootstrap(iteration: Tree) -> bool:
    return iteration.get("kind") == IterationKind.BOOTSTRAP


def version_before(iteration: Tree) -> str:
    """The paper's name of what the iteration starts from: it makes M_t+1 from M_t."""
    return f"M{iteration.get('index') or 0}"


def version_after(iteration: Tree) -> str:
    return f"M{(iteration.get('index') or 0) + 1}"


def name(iteration: Tree) -> str:
    first = "Bootstrap" if is_bootstrap(iteration) else f"Iteration {plain(iteration.get('index'))}"
    return f"{first} ({version_before(iteration)} to {version_after(iteration)})"


def improving(data: Tree) -> list[Tree]:
    return [i for i in data["iterations"] if not is_bootstrap(i)]


def judging_mode(data: Tree) -> str | None:
    """The mode that the run's own judgements are written in."""
    mode: str | None = dig(data["run"], "config", "judging", "mode")
    return mode


def held_out_metrics(data: Tree, version: Any, mode: str | None) -> Tree | None:
    """How a version agreed with the humans; None where it was not asked or is not done."""
    for found in data["assessments"]:
        of_version = found.get("version") == version and found.get("mode") == mode
        if of_version and found.get("purpose") == Purpose.HEALTH:
            metrics: Tree | None = found.get("metrics")
            return metrics
    return None


def newest_evaluation(data: Tree, a: str, b: str) -> Tree | None:
    """The newest head to head of A against B, one with a result if there is any."""
    both = [e for e in data["evaluations"] if (e.get("a"), e.get("b")) == (a, b)]
    with_result = [e for e in both if e.get("result")]
    return next(reversed(with_result or both), None)


def absence(iteration: Tree) -> str:
    """Why a part of an iteration is missing."""
    state, phase = iteration.get("state"), spaced(iteration.get("phase"))
    if state == IterationState.FAILED:
        return f"{name(iteration)} failed in phase {phase}; its error stands under Progress."
    if state == IterationState.PAUSED:
        return f"{name(iteration)} is paused in phase {phase}."
    if state == IterationState.CANCELLED:
        return f"{name(iteration)} was cancelled in phase {phase}."
    if state == IterationState.QUEUED:
        return f"{name(iteration)} waits for its turn."
    if state == IterationState.RUNNING:
        return f"{name(iteration)} is in phase {phase}."
    return f"{name(iteration)} recorded nothing of this."


def standing(data: Tree) -> str:
    """How far the run has come."""
    whole = data["iterations"]
    if not whole:
        return "No iteration has begun."
    behind = [i for i in whole if i.get("state") != IterationState.SUCCEEDED]
    return absence(behind[0]) if behind else f"All its iterations ({len(whole)}) succeeded."


_NOT_ASKED = {
    "evaluation": "The run's config asks for no head to head (evaluation is null).",
    "bootstrap": "The run has no bootstrap (bootstrap is null), and so neither human rankings "
    "to hold a judge against nor EFT.",
}


def not_asked(data: Tree, part: str) -> str:
    """Why a part of the method is missing: the config leaves it out, or it is yet to come."""
    config = dig(data["run"], "config") or {}
    if part in config and config[part] is None:
        return _NOT_ASKED[part]
    return standing(data)


def left_out(data: Tree) -> list[str]:
    """A sentence for each phase that went on without what failed for good."""
    told = []
    for iteration in data["iterations"]:
        prompts = dig(iteration, "report", "dead_prompts")
        if isinstance(prompts, Mapping):
            told.append(_dead(iteration, prompts, "num_prompts", "prompts"))
        judged = dig(iteration, "report", "dead_ranked_responses")
        for of_what, found in (judged if isinstance(judged, Mapping) else {}).items():
            told.append(_dead(iteration, found, "num_items", f"ranked responses ({of_what})"))
    return told


def _dead(iteration: Tree, found: Any, num_all: str, what: str) -> str:
    num, all_of_them = plain(dig(found, "num_dead")), plain(dig(found, num_all))
    return (
        f"{name(iteration)}: {num} of {all_of_them} {what} failed for good and are left out. The "
        f"most frequent error: {plain(dig(found, 'error'))}"
    )
