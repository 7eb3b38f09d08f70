"""What vLLM reads of a checkpoint at its start only, and never again at a swap of weights.

These are the tokenizer, the chat template and the token ids that end an answer. A version
that differs in one of them would be served with those of the version that the server was
started with, unnoticed: so it is refused, unless it only ends answers at more ids, which the
gate then adds to each request. Files may differ in what changes no token (padding,
truncation, the version of the library that wrote them).
"""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rewardloop.errors import CheckpointInvalid, SwapFailed

_TOKENIZER_FILES = ("tokenizer.model", "vocab.json", "merges.txt", "vocab.txt", "spiece.model")
_SPECIAL = ("bos_token", "eos_token", "unk_token", "add_bos_token", "add_eos_token")
_NO_MATTER = ("padding", "truncation", "version")


@dataclass(frozen=True, slots=True)
class ReadAtStart:
    """Each field's doc names it in an error."""

    stop_ids: frozenset[int]
    chat_template: str
    special_tokens: str
    tokenizer: tuple[str | bytes, ...]


def read_at_start(folder: Path) -> ReadAtStart:
    """
    Raises:
        CheckpointInvalid: one of the files is no JSON.
    """
    settings = _json(folder / "tokenizer_config.json")
    tokenizer = _json(folder / "tokenizer.json")
    special = {name: _spelling(settings.get(name)) for name in _SPECIAL}
    return ReadAtStart(
        stop_ids=_stop_ids(folder) | _id_of(special["eos_token"], tokenizer),
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
    if missing := started_with.stop_ids - new.stop_ids:
        differ.insert(0, "stop_ids")
    if not differ:
        return
    what = ", ".join(name.replace("_", " ") for name in differ)
    stops = f" ({sorted(missing)} would still end its answers)"
    raise SwapFailed(
        f"{version} differs from {started} in its {what}"
        f"{stops if missing else ''}. vLLM reads them only when it starts, and this "
        f"server started with {started}, so it would serve {version} wrongly. Publish {version} "
        f"again with the tokenizer and generation_config.json of {started}, or import it as the "
        "base model of a new deployment"
    )


def _template(folder: Path, settings: dict[str, Any]) -> str:
    """The chat template, wherever the library that saved it put it."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text()
    found = settings.get("chat_template") or _json(folder / "chat_template.json").get(
        "chat_template"
    )
    return found if isinstance(found, str) else json.dumps(found)


def _spelling(token: Any) -> Any:
    """A special token stands there as a text or as an object with that text."""
    return token.get("content") if isinstance(token, dict) else token


def _stop_ids(folder: Path) -> frozenset[int]:
    """Of the generation config, or of the model's config where there is none, as in vLLM."""
    path = folder / "generation_config.json"
    value = _json(path if path.is_file() else folder / "config.json").get("eos_token_id")
    if value is None:
        return frozenset()
    return frozenset(value if isinstance(value, list) else [value])


def _id_of(spelling: Any, tokenizer: dict[str, Any]) -> frozenset[int]:
    """The id of the tokenizer's own end, at which vLLM stops besides."""
    added = tokenizer.get("added_tokens", [])
    return frozenset(token["id"] for token in added if token.get("content") == spelling)


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise CheckpointInvalid(f"{path.parent.name}: {path.name} is no JSON") from error
    return found if isinstance(found, dict) else {}
