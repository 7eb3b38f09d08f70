"""Run configs that ship with the project: `rewardloop start --preset paper`."""

from importlib.resources import files
from typing import Any

from rewardloop.config.files import parse_mapping
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
    file = f"{name}.yaml"
    return parse_mapping(files(__name__).joinpath(file).read_text(), file)


def merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`under` with the keys of `over` on top, mapping by mapping.

    A mapping that names another `kind` replaces the one below: the keys of one kind mean
    nothing to another.
    """
    both = dict(under)
    for key, value in over.items():
        below = both.get(key)
        if isinstance(below, dict) and isinstance(value, dict) and not _is_another(below, value):
            both[key] = merged(below, value)
        else:
            both[key] = value
    return both


def _is_another(under: dict[str, Any], over: dict[str, Any]) -> bool:
    return "kind" in over and over["kind"] != under.get("kind")
