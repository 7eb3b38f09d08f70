"""What a training begins with: a version of full weights, or an adapter on one, or both made one.

Knows neither torch nor TRL.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewardloop import checkpoints, servable
from rewardloop.errors import InvalidInput
from rewardloop.servable.adapter import most_bytes, read_adapter


@dataclass(frozen=True, slots=True)
class Start:
    task: dict[str, Any]
    """What the child is told of the folders that it reads."""
    about: dict[str, Any]
    """What the new manifest says of the base; nothing of full weights."""
    checkpoint_bytes: int
    """What is published, at the most."""


def start_from(parent: Path, manifest: dict[str, Any], weights: dict[str, Any]) -> Start:
    """From the version in `parent`, whose verified manifest is given, as `weights` of the config
    asks for.

    Raises:
        InvalidInput: it is an adapter of another rank or alpha than is to be trained.
    """
    base = servable.effective_folder(parent)
    task = {"base": str(base)}
    if base != parent:
        task["adapter"] = str(parent)
    if weights["kind"] == "full":
        return Start(task, {}, checkpoints.size_of(base))
    if base != parent:
        _require_same(parent, weights)
    about = {"base": manifest.get("base") or checkpoints.as_base(manifest)}
    layout = servable.read_form(base).layout or {}
    return Start(task, about, most_bytes(layout, weights["rank"]))


def _require_same(parent: Path, weights: dict[str, Any]) -> None:
    has = read_adapter(parent)
    if (has.rank, has.alpha) != (weights["rank"], weights["alpha"]):
        raise InvalidInput(
            f"{parent.name} is an adapter of rank {has.rank} and alpha {has.alpha:g}, and its "
            f"training is to go on with rank {weights['rank']} and alpha {weights['alpha']}: begin "
            f"a run with weights: {{kind: lora, rank: {has.rank}, alpha: {has.alpha:g}}}, or one "
            f"from the whole weights that `rewardloop export-model {parent.name}` writes"
        )
