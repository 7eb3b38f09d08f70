"""Whether a checkpoint's files are a model that a running engine can take over.

Reads files and runs no model: needs no torch, and transformers only where a config differs
in its words or where a model is seen for the first time. Invariant: what passes here under
`like` has the tensors, the config, the tokenizer and the template of `like`, and only finite
numbers. Of an adapter (see `adapter`) everything but its tensors is its base's. A folder whose
`config.json` names no `model_type` is no model: the stub engine of the tests serves such ones,
vLLM's launcher refuses them, and after a model none is accepted.
"""

from dataclasses import dataclass
from pathlib import Path

from rewardloop.servable.adapter import effective_folder, require_fitting
from rewardloop.servable.at_start import ReadAtStart, read_at_start, require_same
from rewardloop.servable.code import (
    invalid,
    read_json,
    require_known,
    require_known_tokenizer,
    require_no_code,
    tokenizer_class,
    version_of,
)
from rewardloop.servable.weights import Layout, read_layout, require_finite, require_same_layout

__all__ = [
    "Form",
    "effective_folder",
    "read_form",
    "require_model",
    "require_servable",
    "require_sound",
    "version_of",
]

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
    base = effective_folder(folder)
    try:
        return Form(
            version_of(folder),
            read_at_start(base),
            read_layout(base) if _is_model(base) else None,
            tokenizer_class(base),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # one odd value in them
        raise invalid(
            folder,
            f"its configs or its tokenizer are not of the form that vLLM reads "
            f"({type(error).__name__}: {error}); publish it again",
        ) from error


def require_servable(folder: Path, like: Form | None = None) -> Form:
    """Check the model in `folder`, against the form `like` of one that is served.

    Raises:
        CheckpointInvalid: the files are no model that may be served; file and mend are named.
        SwapFailed: it is one, with another tokenizer, template or config than `like`.
    """
    form, base = require_sound(folder), effective_folder(folder)
    if like is None:
        if form.layout is not None:
            require_known(base)
        return form
    if like.layout is not None:
        require_model(base)
        require_same_layout(like.layout, like.version, form.layout or {}, form.version)
    require_same(like.at_start, like.version, form.at_start, form.version)
    if form.tokenizer_class != like.tokenizer_class:
        require_known_tokenizer(base)
    return form


def require_sound(folder: Path) -> Form:
    """Check what can be seen without knowing which model it should be.

    The numbers of an adapter's base were looked at when the base was published.

    Raises:
        CheckpointInvalid: a config names code, or the weights are unsound or not finite, or an
            adapter does not fit its base.
    """
    base = effective_folder(folder)
    require_no_code(folder)
    require_no_code(base)
    form = read_form(folder)
    if base != folder:
        require_fitting(folder, form.layout)
    if base != folder or form.layout is not None:
        require_finite(folder)
    return form


def require_model(folder: Path) -> None:
    """
    Raises:
        CheckpointInvalid: its config says of no model what it is, so no engine can load it.
    """
    if not _is_model(effective_folder(folder)):
        raise invalid(
            folder, f"{CONFIG} is missing or has no model_type, so it is no model; publish it again"
        )


def _is_model(folder: Path) -> bool:
    return bool(read_json(folder / CONFIG).get("model_type"))
