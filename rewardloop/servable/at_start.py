"""What vLLM reads of a checkpoint at its start only, and never again at a swap of weights.

These are the model's config, the tokenizer, the chat template and the token ids that end an
answer. A version that differs in one of them would be served with those of the version that
the server was started with, unnoticed: so it is refused, unless it only ends answers at more
ids, which the gate then adds to each request. Files may differ in what changes no token (padding,
truncation, dropout, the version of the library that wrote them, a default that one library
writes out and another does not).
"""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rewardloop.errors import SwapFailed
from rewardloop.servable.code import read_json

_TOKENIZER_FILES = ("tokenizer.model", "vocab.json", "merges.txt", "vocab.txt", "spiece.model")
_SPECIAL = ("bos_token", "eos_token", "unk_token", "add_bos_token", "add_eos_token")
_NO_MATTER = ("padding", "truncation", "version")
_OF_TRAINING = ("use_cache", "initializer_range", "transformers_version", "_name_or_path")
_ELSEWHERE = ("bos_token_id", "eos_token_id", "pad_token_id", "dtype", "torch_dtype")
"""In the generation config, the tokenizer, and the weights themselves."""


@dataclass(frozen=True, slots=True)
class ReadAtStart:
    """Each field's doc names it in an error."""

    stop_ids: frozenset[int]
    config: dict[str, Any]
    chat_template: str
    special_tokens: str
    tokenizer: tuple[str | bytes, ...]


def read_at_start(folder: Path) -> ReadAtStart:
    """
    Raises:
        CheckpointInvalid: one of the files is no JSON.
    """
    settings = read_json(folder / "tokenizer_config.json")
    tokenizer = read_json(folder / "tokenizer.json")
    special = {name: _spelling(settings.get(name)) for name in _SPECIAL}
    return ReadAtStart(
        stop_ids=_stop_ids(folder) | _id_of(special["eos_token"], tokenizer),
        config=_config(read_json(folder / "config.json")),
        chat_template=_template(folder, settings),
        special_tokens=json.dumps(special),
        tokenizer=(
            json.dumps({k: v for k, v in tokenizer.items() if k not in _NO_MATTER}),
            *(_bytes(folder / name) for name in _TOKENIZER_FILES),
        ),
    )


def require_same(started_with: ReadAtStart, started: str, new: ReadAtStart, version: str) -> None:
    """
    Raises:
        SwapFailed: naming what `version` has otherwise than `started`.
    """
    fixed = [field.name for field in fields(ReadAtStart) if field.name != "stop_ids"]
    differ = [name for name in fixed if getattr(started_with, name) != getattr(new, name)]
    if "config" in differ and _written_out(started_with.config) == _written_out(new.config):
        differ.remove("config")
    if missing := started_with.stop_ids - new.stop_ids:
        differ.insert(0, "stop_ids")
    if not differ:
        return
    what = ", ".join(name.replace("_", " ") for name in differ)
    stops = f" ({sorted(missing)} would still end its answers)"
    raise SwapFailed(
        f"{version} differs from {started} in its {what}"
        f"{stops if missing else ''}. vLLM reads them only when it starts, so a server that "
        f"started with {started} would serve {version} wrongly. Publish {version} again with the "
        f"tokenizer, config.json and generation_config.json of {started}, or import it as the "
        "base model of a new deployment"
    )


def _config(config: dict[str, Any]) -> dict[str, Any]:
    """What of a model's config decides what it computes."""
    no_matter = {*_OF_TRAINING, *_ELSEWHERE}
    return {
        name: value
        for name, value in config.items()
        if name not in no_matter and not name.endswith(("dropout", "_pdrop"))
    }


def _written_out(config: dict[str, Any]) -> dict[str, Any]:
    """The config with the defaults that its library left out; as it is where none knows it."""
    try:
        from transformers import AutoConfig

        return _config(AutoConfig.for_model(**config).to_dict())
    except (ImportError, ValueError, TypeError, AttributeError):
        return config


def _template(folder: Path, settings: dict[str, Any]) -> str:
    """The chat template, wherever the library that saved it put it."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text()
    found = settings.get("chat_template") or read_json(folder / "chat_template.json").get(
        "chat_template"
    )
    return found if isinstance(found, str) else json.dumps(found)


def _spelling(token: Any) -> Any:
    """A special token stands there as a text or as an object with that text."""
    return token.get("content") if isinstance(token, dict) else token


def _stop_ids(folder: Path) -> frozenset[int]:
    """Of the generation config, or of the model's config where there is none, as in vLLM."""
    path = folder / "generation_config.json"
    value = read_json(path if path.is_file() else folder / "config.json").get("eos_token_id")
    if value is None:
        return frozenset()
    return frozenset(value if isinstance(value, list) else [value])


def _id_of(spelling: Any, tokenizer: dict[str, Any]) -> frozenset[int]:
    """The id of the tokenizer's own end, at which vLLM stops besides."""
    added = tokenizer.get("added_tokens", [])
    return frozenset(token["id"] for token in added if token.get("content") == spelling)


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""
