"""What in a checkpoint's configs would make a library run code that it does not ship.

transformers and vLLM run code of a checkpoint where a config names it (`auto_map`). We switch
that off everywhere; a checkpoint that asks for it is refused all the same.
"""

import json
from pathlib import Path
from typing import Any

from rewardloop.errors import CheckpointInvalid

NAMES_CODE = frozenset({"auto_map", "custom_pipelines", "trust_remote_code"})


def require_no_code(folder: Path) -> None:
    """
    Raises:
        CheckpointInvalid: a config names code, or cannot be read.
    """
    for path in sorted(folder.glob("*config*.json")):
        if found := sorted(NAMES_CODE & _names(read_json(path))):
            raise invalid(
                folder,
                f"{path.name} names code of its own ({found[0]}), which "
                f"is never run here; delete {found[0]} from it and publish again, if transformers "
                "and vLLM know the model without it",
            )


def require_known(folder: Path) -> None:
    """Needs transformers.

    Raises:
        CheckpointInvalid: transformers ships no such model or tokenizer.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    config = read_json(folder / "config.json")
    kind, named = config.get("model_type"), config.get("architectures")
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind) if isinstance(kind, str) else None
    shipped = {known} if isinstance(known, str) else set(known or ())
    if not isinstance(named, list) or not named or not shipped.issuperset(map(str, named)):
        raise invalid(
            folder,
            f"config.json names the architecture {named!r} of the type "
            f"{kind!r}, which is no language model that transformers ships; import a model that "
            "it does",
        )
    require_known_tokenizer(folder)


def require_known_tokenizer(folder: Path) -> None:
    """Needs transformers.

    Raises:
        CheckpointInvalid: transformers ships no such tokenizer class.
    """
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    name = tokenizer_class(folder)
    if name is not None and (not isinstance(name, str) or tokenizer_class_from_name(name) is None):
        raise invalid(
            folder,
            f"tokenizer_config.json names the tokenizer class {name!r}, "
            "which transformers does not ship; name one that it does",
        )


def tokenizer_class(folder: Path) -> Any:
    return read_json(folder / "tokenizer_config.json").get("tokenizer_class")


def invalid(folder: Path, what: str) -> CheckpointInvalid:
    return CheckpointInvalid(f"checkpoint {version_of(folder)}: {what}")


def version_of(folder: Path) -> str:
    """The version that a folder holds, or will hold once it is published."""
    return folder.name.removeprefix(".").removesuffix(".partial")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; an empty one where there is no file, or something else in it.

    Raises:
        CheckpointInvalid: the file is no JSON.
    """
    try:
        found = json.loads(path.read_text()) if path.is_file() else {}
    except (ValueError, RecursionError) as error:
        raise CheckpointInvalid(f"{version_of(path.parent)}: {path.name} is no JSON") from error
    return found if isinstance(found, dict) else {}


def _names(value: Any) -> set[str]:
    """Every key of an object and of the objects in it."""
    names: set[str] = set()
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            names |= item.keys()
            left += item.values()
        elif isinstance(item, list):
            left += item
    return names
