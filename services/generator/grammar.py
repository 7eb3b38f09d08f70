"""What an engine may be held to by `structured_outputs` or `response_format`, and how much of it.

Compiling a grammar takes time and memory on the engine's only event loop, and some grammars
end in an error of the engine (a schema that refers to itself, an empty text). So a request
may name one of three parts (a regular expression, a choice, a JSON schema) or ask for any JSON
object, and each is bounded: its characters, its depth, its repetitions, its references.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from rewardloop.errors import NotServed, TooLarge

MAX_CHARS = 4000
MAX_DEPTH = 16
MAX_CHOICES = 256
MAX_PARTS = 2000
"""Objects of a schema, each counted as often as it is referred to."""
MAX_REPEATS = 10_000
"""The largest number in a pattern's or a schema's bounds, and the product of a pattern's."""

PARTS = ("regex", "choice", "json", "json_object")
_COUNT = re.compile(r"(?<!\\)\{(\d+)(?:,(\d*))?\}")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")


def require_bounded(request: dict[str, Any]) -> None:
    """
    Raises:
        NotServed: the request holds the engine to what is not offered, or to more than may be.
        TooLarge: its text is too long.
    """
    for field in ("structured_outputs", "response_format"):
        if len(json.dumps(request.get(field))) > MAX_CHARS:
            raise TooLarge(f"{field} exceeds {MAX_CHARS} characters; make it shorter")
    asked, form = request.get("structured_outputs"), request.get("response_format")
    if asked is not None and _says_more_than_text(form):
        raise NotServed("response_format and structured_outputs exclude each other; send one")
    if asked is not None:
        _require_structured(asked)
    if form is not None:
        _require_format(form)


def _says_more_than_text(form: Any) -> bool:
    return form is not None and not (isinstance(form, dict) and form.get("type") == "text")


def _require_structured(asked: Any) -> None:
    given = _object(asked, "structured_outputs")
    parts = {name: value for name, value in given.items() if value not in (None, False)}
    if unknown := sorted(parts.keys() - set(PARTS)):
        named = ", ".join(f"structured_outputs.{name[:100]}" for name in unknown[:20])
        raise NotServed(f"{named} is not served here; use one of {', '.join(PARTS)}")
    if len(parts) != 1:
        raise NotServed(f"structured_outputs must have exactly one of {', '.join(PARTS)}")
    ((name, value),) = parts.items()
    where = f"structured_outputs.{name}"
    if name == "regex":
        _require_pattern(value, where)
    elif name == "choice":
        _require_choices(value, where)
    elif name == "json":
        _require_schema(value, where)
    elif value is not True:
        raise NotServed(f"{where} must be true")


def _require_format(asked: Any) -> None:
    form = _object(asked, "response_format")
    kind = form.get("type")
    if kind not in ("text", "json_object", "json_schema"):
        raise NotServed(
            f"response_format.type {str(kind)[:40]!r} is not served here; use text, json_object or "
            "json_schema"
        )
    if kind == "json_schema":
        where = "response_format.json_schema"
        _require_schema(_object(form.get("json_schema"), where).get("schema"), f"{where}.schema")


def _require_pattern(pattern: Any, where: str) -> None:
    if not isinstance(pattern, str) or not pattern:
        raise NotServed(f"{where} must be a regular expression that is not empty")
    product = 1
    for least, most in _COUNT.findall(pattern):
        product *= max(int(most or least), 1)
    if product > MAX_REPEATS:
        raise NotServed(f"{where} repeats too much: its counts multiply to over {MAX_REPEATS}")
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise NotServed(f"{where} is no regular expression: {error}") from error


def _require_choices(choices: Any, where: str) -> None:
    is_list = isinstance(choices, list) and 0 < len(choices) <= MAX_CHOICES
    if not is_list or not all(isinstance(text, str) and text for text in choices):
        raise NotServed(f"{where} must be a list of 1 to {MAX_CHOICES} texts, none of them empty")


def _require_schema(given: Any, where: str) -> None:
    schema = given
    if isinstance(given, str):
        try:
            schema = json.loads(given)
        except (ValueError, RecursionError) as error:
            raise NotServed(f"{where} is no JSON: {error}") from error
    root = _object(schema, where)
    if _depth(root) > MAX_DEPTH:
        raise NotServed(f"{where} is nested deeper than {MAX_DEPTH} levels; make it flatter")
    for number, part in enumerate(_expanded(root, where), start=1):
        if number > MAX_PARTS:
            raise NotServed(
                f"{where} refers to itself, or has more than {MAX_PARTS} parts; write it out"
            )
        _require_counts(part, where)


def _require_counts(part: dict[str, Any], where: str) -> None:
    for name in _COUNTS:
        count = part.get(name, 0)
        if not isinstance(count, int | float) or not 0 <= count <= MAX_REPEATS:
            raise NotServed(f"{where}: {name} must be a number from 0 to {MAX_REPEATS}")
    if isinstance(part.get("pattern"), str):
        _require_pattern(part["pattern"], f"{where}: pattern")


def _expanded(root: dict[str, Any], where: str) -> Iterator[dict[str, Any]]:
    """Every object of a schema, again for each reference to it; without end where it refers to
    itself."""
    pending: list[Any] = [root]
    while pending:
        item = pending.pop()
        if isinstance(item, list):
            pending += item
        elif isinstance(item, dict):
            yield item
            inner = {name: value for name, value in item.items() if name not in _DEFINED}
            pending += inner.values()
            if isinstance(item.get("$ref"), str):
                pending.append(_referred(root, item["$ref"], where))


_DEFINED = ("$defs", "definitions")
"""Counted where they are referred to."""


def _referred(root: dict[str, Any], reference: str, where: str) -> Any:
    if reference == "#":
        return root
    found: Any = root
    for name in reference.removeprefix("#/").split("/") if reference[:2] == "#/" else [None]:
        found = found.get(name) if isinstance(found, dict) else None
    if found is None:
        raise NotServed(f"{where}: $ref {reference[:100]!r} leads nowhere in the schema")
    return found


def _depth(value: Any) -> int:
    """Levels of a value that was parsed, so it is no deeper than the gate's own bound."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return max((1 + _depth(item) for item in inner), default=0)


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise NotServed(f"{where} must be an object")
    return value
