"""What no request may carry into the engine, because one request must not stop a server."""

import json
from typing import Any

from rewardloop.errors import InvalidInput, NotServed, TooLarge
from services.generator import grammar
from services.generator.fields import MAX_TOOLS_CHARS, served_fields
from services.generator.machine import has_gpu

MAX_SEQUENCES = 64
"""128 at once, as many as OpenAI takes for `n`, made a neighbour on two cores wait 2.4 times as
long."""
TOOL_CHOICES = (None, "none", "auto")


def _engine_takes_seeds() -> bool:
    """A seeded request can kill vLLM's CPU engine: a prompt prefilled in chunks makes it
    rewind the generator ("CPU Generator does not use offset"). Can go when vLLM's CPU
    sampler supports offsets."""
    return has_gpu()


def sanitize(body: bytes, *, chat: bool) -> tuple[bytes, list[str]]:
    """The body to pass on, and the names of the fields that were dropped from it.

    Raises:
        InvalidInput: the body is not a JSON object.
        NotServed: it has a field that is not served, or one out of its bounds.
        TooLarge: it asks for more sequences, or a longer grammar, than one request may.
    """
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the body is not JSON: {error}") from error
    if not isinstance(request, dict):
        raise InvalidInput("the body must be a JSON object")
    _require_few_sequences(request)
    served = served_fields(request, chat=chat)
    grammar.require_bounded(served)
    _require_small_tools(served)
    dropped = []
    if served.get("seed") is not None and not _engine_takes_seeds():
        del served["seed"]
        dropped = ["seed"]
    return (body if served == request else json.dumps(served).encode()), dropped


def _require_few_sequences(request: dict[str, Any]) -> None:
    prompt = request.get("prompt")
    many = isinstance(prompt, list) and prompt and not isinstance(prompt[0], int)
    num_prompts = len(prompt) if many and isinstance(prompt, list) else 1
    num_sequences = num_prompts * _count(request, "n")
    if num_sequences > MAX_SEQUENCES:
        raise TooLarge(
            f"one request may ask for at most {MAX_SEQUENCES} sequences, not {num_sequences}; "
            "send several requests"
        )


def _require_small_tools(request: dict[str, Any]) -> None:
    if len(json.dumps(request.get("tools"))) > MAX_TOOLS_CHARS:
        raise TooLarge(f"tools exceed {MAX_TOOLS_CHARS} characters; send fewer or shorter ones")
    if request.get("tool_choice") not in TOOL_CHOICES:
        raise NotServed("tool_choice is not served here but for none and auto; leave it out")


def _count(request: dict[str, Any], name: str) -> int:
    value = request.get(name)
    if value is None:
        return 1
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidInput(f"{name} must be a whole number, not {str(value)[:40]!r}")
    if value < 1:
        raise InvalidInput(f"{name} must be at least 1, not {value}")
    return value
