"""Which version a request asks for by the field `model`. Knows JSON only."""

import json
from typing import Any

from rewardloop.clients.generator import POLICY
from rewardloop.errors import UnknownModel
from rewardloop.records import VERSION_ID


def named_version(asked: dict[str, Any]) -> str | None:
    """The version that a request names; None where it leaves that to the engine.

    Raises:
        UnknownModel: the name is no version's.
    """
    named = asked.get("model")
    if named in (None, "", POLICY):
        return None
    if not VERSION_ID.fullmatch(named):
        raise UnknownModel(
            f"there is no model {named[:100]!r} here: ask for {POLICY!r}, or for a version by its "
            "id; `rewardloop models` lists them"
        )
    return str(named)


def asking(model: str, named: str | None, body: bytes) -> bytes:
    """The body, which names `named`, with the name by which the engine knows the version."""
    if model == (named or POLICY):
        return body
    return json.dumps({**json.loads(body), "model": model}).encode()
