"""Whether a checkpoint's files are a model that a running engine can take over.

Reads files and runs no model: needs no torch, and transformers only where a config differs
in its words or where a model is seen for the first time. Invariant: what passes here under
`like` has the tensors, the config, the tokenizer and the template of `like`, and only finite
numbers. A folder whose `config.json` names no `model_type` is no model: the stub engine of
the tests serves such ones, vLLM's launcher refuses them, and after a model none is accepted.
"""

from dataclasses import dataclass
from pathlib import Path

from rewardloop.errors import CheckpointInvalid
from rewardloop.servable.at_start import ReadAtStart, read_at_start, require_same
from rewardloop.servable.code import (
    read_json,
    require_known,
    require_known_tokenizer,
    require_no_code,
    tokenizer_class,
)
from rewardloop.servable.weights import Layout, read_layout, require_finite, require_same_layout

CONFIG = "config.json"


@dataclass(frozen=True, slots=True)
class Form:
    """What each version that one server serves has in common."""

    version: str
    at_start: ReadAtStart
    layout: Layout | None
    """None for what is no model."""
    tokenizer_class: object


def read_form(folder: Path) -> Form:
    """
    Raises:
        CheckpointInvalid: a config is no JSON or the weights' headers are unsound.
    """
    return Form(
        folder.name,
        read_at_start(folder),
        read_layout(folder) if _is_model(folder) else None,
        tokenizer_class(folder),
    )


def require_servable(folder: Path, like: Form | None = None) -> Form:
    """Check the model in `folder`, against the form `like` of one that is served.

    Raises:
        CheckpointInvalid: the files are no model that may be served; file and mend are named.
        SwapFailed: it is one, with another tokenizer, template or config than `like`.
    """
    require_no_code(folder)
    form = read_form(folder)
    if like is None:
        if form.layout is not None:
            require_known(folder)
            require_finite(folder)
        return form
    if like.layout is not None:
        require_model(folder)
        require_same_layout(like.layout, like.version, form.layout or {}, folder.name)
    if form.layout is not None:
        require_finite(folder)
    require_same(like.at_start, like.version, form.at_start, folder.name)
    if form.tokenizer_class != like.tokenizer_class:
        require_known_tokenizer(folder)
    return form


def require_model(folder: Path) -> None:
    """
    Raises:
        CheckpointInvalid: its config says of no model what it is, so no engine can load it.
    """
    if not _is_model(folder):
        raise CheckpointInvalid(
            f"checkpoint {folder.name} is no model: {CONFIG} is missing or has no model_type; "
            "publish it again"
        )


def _is_model(folder: Path) -> bool:
    return bool(read_json(folder / CONFIG).get("model_type"))
