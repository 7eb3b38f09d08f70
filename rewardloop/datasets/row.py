"""One row of a file, which knows what was read of it.

Owns which columns count as filled, which were looked at, and what single
answers of the row were left out for. A row is read like a mapping; to look a
value up is to use its column. Knows no format.
"""

import json
import math
from collections.abc import Iterator, Mapping

from rewardloop.datasets.reasons import Reason

_SAYS_NOTHING = frozenset({"", "[]", "{}", "null", "none", "nan", "[null]"})


class Row(Mapping[str, object]):
    """A JSON object and its line."""

    def __init__(self, raw: Mapping[str, object], line: int = 0, language: str | None = None):
        self._raw = raw
        self.line = line
        self.language = language
        """The wanted one; None takes all."""
        self.filled = frozenset(key for key, value in raw.items() if is_filled(value))
        self.used: set[str] = set()
        self.passed_over: set[str] = set()
        self.left_out: list[Reason] = []

    def __getitem__(self, key: str) -> object:
        value = self._raw[key]
        self.used.add(key)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw)

    def __len__(self) -> int:
        return len(self._raw)

    def __contains__(self, key: object) -> bool:
        return key in self._raw

    def peek(self, key: str) -> object:
        """A value that is looked at to recognise the row, and not used."""
        return self._raw.get(key)

    def value(self, key: str) -> object:
        """The value, or None where the column is not filled."""
        return self[key] if key in self.filled else None

    def first(self, *keys: str) -> object:
        """The value of the first of these columns that is filled, or None."""
        return next((self[key] for key in keys if key in self.filled), None)

    def listed(self, key: str) -> object:
        """The value; a text that holds a JSON array or object is parsed (as CSV files have it)."""
        return parsed(self.value(key))

    def pass_over(self, *keys: str) -> None:
        """These columns are known to add nothing to what was read."""
        self.passed_over.update(keys)

    def leave_out(self, reason: Reason) -> None:
        """One answer of the row is not read."""
        self.left_out.append(reason)


def is_filled(value: object) -> bool:
    """Whether a value says something: null, NaN, blanks and empty lists do not."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return False
    if isinstance(value, str):
        return bool(value.strip())
    return not isinstance(value, list | dict) or bool(value)


def says_something(value: object) -> bool:
    """Whether a column beside the answer holds anything; there "[]" and "null" do not."""
    if isinstance(value, list):
        return any(says_something(element) for element in value)
    if isinstance(value, dict):
        return any(says_something(element) for element in value.values())
    if isinstance(value, str):
        return value.strip().lower() not in _SAYS_NOTHING
    return is_filled(value)


def parsed(value: object) -> object:
    """The array or object that a text holds as JSON; any other value as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        found: object = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return found if isinstance(found, list | dict) else value
