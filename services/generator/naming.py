"""Which version a request asks for by the field `model`. Knows JSON only."""

import json

from rewardloop.clients.generator import POLICY
from rewardloop.errors import UnknownModel
from rewardloop.servable.adapter import VERSION


def named_version(body: bytes) -> str | None:
    """The version that a request names; None where it leaves that to the engine.

    Raises:
        UnknownModel: the name is no version's.
    """
    named = json.loads(body).get("model")
    if named in (None, "", POLICY):
        return None
    if not VERSION.fullmatch(named):
        raise UnknownModel(
            f"there is no model {named[:100]!r} here: ask for {POLICY!r}, or for a version by its "
            "id; `rewardloop models` lists them"
        )
    return str(named)


def asking(model: str, body: bytes) -> bytes:
    """The body with the name by which the engine knows the version."""
    request = json.loads(body)
    if (request.get("model") or POLICY) == model:
        return body
    return json.dumps({**request, "model": model}).encode()
