"""A wrong config in plain words: each wrong key as a file spells it, and what mends it.

Knows no key: it reads the schema.
"""

import difflib
import re
import reprlib
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, Tag, ValidationError

_SHORT = reprlib.Repr()
"""Shows a value in a message, which has no room for a whole document."""
_SHORT.maxstring = _SHORT.maxother = 80

_PLAIN = {
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "finite_number": "must be a finite number",
    "string_type": "must be a text; put it in quotes",
    "string_unicode": "must be a text without halves of surrogate pairs",
    "missing": "is missing",
    "tuple_type": "must be a list",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number such as 10: no quotes, point, exponent or leading zero",
    "float_type": "must be a number such as 0.5 or 1e-6, without quotes",
    "model_type": "must be a mapping of keys",
    "model_attributes_type": "must be a mapping of keys",
    "dict_type": "must be a mapping of keys",
}


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """One sentence per wrong key of a pydantic error."""
    return " ".join(_explain_one(dict(item), model) for item in error.errors())


def _explain_one(item: dict[str, Any], model: type[BaseModel]) -> str:
    path, holder = _followed(item["loc"], model)
    key = ".".join(path) or "(the whole document)"
    kind, context, got = item["type"], item.get("ctx", {}), _SHORT.repr(item["input"])
    if kind == "extra_forbidden":
        return f"{key}: there is no such key; {_meant(path, holder, model)}"
    if kind == "union_tag_invalid":
        choices = context["expected_tags"].replace("'", "")
        return f"{key}.kind: unknown {context['tag']!r}; use one of {choices}."
    if kind == "union_tag_not_found":
        return f"{key}.kind: is missing; use one of {', '.join(_kinds(holder, path[-1]))}."
    if kind in ("enum", "literal_error"):
        choices = ", ".join(re.findall(r"'([^']*)'", context["expected"]))
        return f"{key}: unknown {got}; use one of {choices}."
    if kind == "value_error":  # one of our own validators
        shown = "" if isinstance(item["input"], dict) else f"; got {got}"
        return f"{key}: {context['error']}{shown}."
    if item["input"] is None:
        return f"{key}: null is no value of this key; leave the key out for its default."
    return f"{key}: {_PLAIN.get(kind, item['msg']).format(**context)}; got {got}."


def _followed(
    loc: tuple[int | str, ...], model: type[BaseModel]
) -> tuple[list[str], type[BaseModel] | None]:
    """The key as a file spells it, and the model that holds its last part.

    Pydantic's path holds the kind too (`weights.lora.rank`).
    """
    path: list[str] = []
    holder: type[BaseModel] | None = model
    inner: dict[str, type[BaseModel]] = {"": model}
    for part in loc:
        if len(inner) > 1 and part in inner:
            inner = {"": inner[str(part)]}
            continue
        holder = inner.get("")
        path.append(str(part))
        field = holder.model_fields.get(str(part)) if holder else None
        inner = _models_of(field.annotation) if field else {}
    return path, holder


def _models_of(annotation: Any) -> dict[str, type[BaseModel]]:
    """The models that a key may hold, by their kind; a single one under no name."""
    tagged = {tag.tag: part for part, tag in map(_untagged, get_args(annotation)) if tag}
    if tagged:
        return {tag: part if _is_model(part) else BaseModel for tag, part in tagged.items()}
    parts = [part for part in get_args(annotation) or (annotation,) if _is_model(part)]
    if len(parts) == 1:
        return {"": parts[0]}
    return {str(part.model_fields["kind"].default): part for part in parts}


def _untagged(annotation: Any) -> tuple[Any, Tag | None]:
    """One member of a union, and the name that pydantic's path gives it."""
    tags = [extra for extra in getattr(annotation, "__metadata__", ()) if isinstance(extra, Tag)]
    return (get_args(annotation)[0], tags[0]) if tags else (annotation, None)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _kinds(holder: type[BaseModel] | None, key: str) -> list[str]:
    return list(_models_of(holder.model_fields[key].annotation)) if holder else []


def _meant(path: list[str], holder: type[BaseModel] | None, model: type[BaseModel]) -> str:
    """Guesses by spelling among the neighbours, then by name in the whole schema."""
    close = difflib.get_close_matches(path[-1], list(holder.model_fields) if holder else [], n=1)
    named = sorted({key for key in _keys(model, "") if key.rpartition(".")[2] == path[-1]})
    if close:
        return f"did you mean {close[0]!r}?"
    if named:
        return f"did you mean {' or '.join(named[:3])}?"
    return "remove it or correct its spelling."


def _keys(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        for part in _models_of(field.annotation).values():
            yield from _keys(part, f"{prefix}{name}.")
