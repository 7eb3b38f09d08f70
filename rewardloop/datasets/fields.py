"""Typed look-ups in one raw JSON object.

A value of the wrong kind is a `ValueError` whose text is the problem as a user
should read it, with the key in quotes. Knows no format.
"""

from collections.abc import Mapping
from typing import cast

Raw = Mapping[str, object]
"""A JSON object as it was parsed."""


def text(raw: Raw, key: str) -> str:
    """A text that has to be there; it may be blank."""
    if key not in raw:
        raise ValueError(f'"{key}" is missing')
    value = raw[key]
    if not isinstance(value, str):
        raise ValueError(f'"{key}" is {kind_of(value)}, not a text')
    return value


def optional_text(raw: Raw, key: str) -> str | None:
    """A text, or None where it is missing, null or blank."""
    if raw.get(key) is None:
        return None
    value = text(raw, key)
    return value if value.strip() else None


def child(raw: Raw, key: str) -> Raw:
    """An object that has to be there."""
    if key not in raw:
        raise ValueError(f'"{key}" is missing')
    value = raw[key]
    if not isinstance(value, dict):
        raise ValueError(f'"{key}" is {kind_of(value)}, not an object')
    return cast(Raw, value)


def children(raw: Raw, key: str) -> list[Raw]:
    """A list of objects that has to be there; it may be empty."""
    if key not in raw:
        raise ValueError(f'"{key}" is missing')
    value = raw[key]
    if not isinstance(value, list):
        raise ValueError(f'"{key}" is {kind_of(value)}, not a list')
    for number, element in enumerate(value, start=1):
        if not isinstance(element, dict):
            raise ValueError(f'"{key}" element {number} is {kind_of(element)}, not an object')
    return cast(list[Raw], value)


def source(format_name: str, raw: Raw, *keys: str) -> str:
    """`format:id` with the first of the keys that holds an id, else the format alone."""
    for key in keys:
        value = raw.get(key)
        if isinstance(value, str | int) and str(value).strip():
            return f"{format_name}:{value}"
    return format_name


def names(words: str) -> frozenset[str]:
    """The names that a text lists, apart by white space."""
    return frozenset(words.split())


def kind_of(value: object) -> str:
    """The value's JSON type, with its article."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list():
            return "an array"
        case _:
            return "an object"


def keys_of(raw: Raw) -> str:
    """The object's first keys in alphabetical order, for a message."""
    shown = ", ".join(sorted(raw)[:12]) or "none"
    return f"{shown}, ..." if len(raw) > 12 else shown
