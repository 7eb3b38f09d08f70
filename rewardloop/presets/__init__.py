"""Run configs that ship with the project: `rewardloop start --preset paper`."""

from importlib.resources import files
from typing import Any

import yaml

from rewardloop.errors import NotFound


def names() -> list[str]:
    """The presets there are."""
    found = (entry.name for entry in files(__name__).iterdir())
    return sorted(name.removesuffix(".yaml") for name in found if name.endswith(".yaml"))


def load(name: str) -> dict[str, Any]:
    """A preset as plain data.

    Raises:
        NotFound: there is no such preset; the message names those that there are.
    """
    if name not in names():
        raise NotFound(f"there is no preset {name!r}; there are {', '.join(names())}")
    data: dict[str, Any] = yaml.safe_load(files(__name__).joinpath(f"{name}.yaml").read_text())
    return data


def merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`under` with the keys of `over` on top, mapping by mapping."""
    both = dict(under)
    for key, value in over.items():
        below = both.get(key)
        nested = isinstance(below, dict) and isinstance(value, dict)
        both[key] = merged(below, value) if nested else value  # type: ignore[arg-type]
    return both
