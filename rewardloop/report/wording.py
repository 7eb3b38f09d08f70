"""How the report spells figures. Pure.

Invariant: what is missing, infinite or not a number is spelled `ABSENT`, so a page never
says None or nan. Knows nothing of the page.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from math import isfinite
from typing import Any

from jinja2 import Undefined

ABSENT = "\N{EN DASH}"


def finite(value: Any) -> float | None:
    """The value where it is a finite number, else None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and isfinite(value) else None


def number(value: Any) -> str:
    """A count in full, any other number to three digits or to the whole."""
    found = finite(value)
    if found is None:
        return ABSENT
    return f"{found:,.0f}" if isinstance(found, int) or abs(found) >= 100 else f"{found:.3g}"


def fixed(value: Any) -> str:
    """Three decimals, as the paper gives correlations."""
    found = finite(value)
    return ABSENT if found is None else f"{found:.3f}"


def hundredths(value: Any) -> str:
    """Two decimals, for scores."""
    found = finite(value)
    return ABSENT if found is None else f"{found:.2f}"


def percent(value: Any) -> str:
    """A share, 0 to 1."""
    found = finite(value)
    return ABSENT if found is None else f"{100 * found:.1f}\N{NO-BREAK SPACE}%"


def points(value: Any) -> str:
    """A difference of two shares, -1 to 1, in percentage points with its sign."""
    found = finite(value)
    return ABSENT if found is None else f"{100 * found:+.1f}"


def interval(low: Any, high: Any) -> str:
    """Two shares, or differences of them, in hundredths; empty where either is missing."""
    if finite(low) is None or finite(high) is None:
        return ""
    return f"{100 * low:.1f} to {100 * high:.1f}"


def range_of(found: Any, is_share: bool = True) -> str:
    """A stored interval, in hundredths or as a correlation, or why there is none; empty
    where an older version stored neither."""
    if not isinstance(found, Mapping):
        return ""
    low, high = finite(found.get("low")), finite(found.get("high"))
    if low is None or high is None:
        return str(plain(found.get("reason") or ""))
    return interval(low, high) if is_share else f"{low:.2f} to {high:.2f}"


def duration(seconds: Any) -> str:
    found = finite(seconds)
    if found is None:
        return ABSENT
    if found < 60:
        return f"{found:.1f} s"
    minutes, rest = divmod(round(found), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def moment(text: Any) -> str:
    """An ISO 8601 time to the minute; anything else as it is."""
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M %Z}".strip()
    except (TypeError, ValueError):
        return str(plain(text))


def spaced(key: Any) -> str:
    """`too_few_scored` as words."""
    return str(plain(key)).replace("_", " ")


def plain(value: Any) -> Any:
    """What the template prints of a value that no other function here has spelled."""
    if value is None or isinstance(value, Undefined):
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}" if isfinite(value) else ABSENT
    return value


def document(value: Any) -> str:
    """Nested values as indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False)
