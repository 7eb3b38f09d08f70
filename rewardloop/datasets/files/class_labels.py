"""The names of classes that `datasets` keeps beside a table, where its cells hold numbers.

A column of the type ClassLabel holds 0, 1, ...; which of them is "good" stands only
in the schema's metadata. Pure; knows no file and no format.
"""

import json
from collections.abc import Mapping, Sequence

Names = Mapping[str, Sequence[str]]
"""A column's class names, in the order of their numbers."""


def class_names(metadata: Mapping[bytes, bytes] | None) -> Names:
    """The columns that hold numbers of classes; none where the metadata does not say."""
    try:
        told = json.loads((metadata or {}).get(b"huggingface", b"{}"))
        features = told["info"]["features"]
        return {
            column: feature["names"]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def named(row: Mapping[str, object], names: Names) -> dict[str, object]:
    """The row with the classes' names; a number without a class (-1) is null, as `datasets` has it.

    Where the names are numbers themselves, nothing is changed by it.
    """
    return {
        column: _name(value, names[column]) if column in names else value
        for column, value in row.items()
    }


def _name(value: object, names: Sequence[str]) -> object:
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    return names[value] if 0 <= value < len(names) else None
