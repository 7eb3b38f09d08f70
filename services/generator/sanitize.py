"""What no request may carry into the engine, because one request must not stop a server."""

import json
from typing import Any

from rewardloop.errors import InvalidInput, TooLarge
from services.generator.machine import has_gpu

MAX_SEQUENCES = 256
MAX_PATTERN_CHARS = 4000


def _engine_takes_seeds() -> bool:
    """A seeded request can kill vLLM's CPU engine: a prompt prefilled in chunks makes it
    rewind the generator ("CPU Generator does not use offset"). Can go when vLLM's CPU
    sampler supports offsets."""
    return has_gpu()


def sanitize(body: bytes) -> tuple[bytes, list[str]]:
    """The body to pass on, and the names of the fields that were dropped from it.

    Raises:
        InvalidInput: the body is not a JSON object.
        TooLarge: it asks for more sequences, or a longer grammar, than one request may.
    """
    try:
        request = json.loads(body)
    except ValueError as error:
        raise InvalidInput(f"the body is not JSON: {error}") from error
    if not isinstance(request, dict):
        raise InvalidInput("the body must be a JSON object")
    _check_size(request)
    if request.get("seed") is None or _engine_takes_seeds():
        return body, []
    del request["seed"]
    return json.dumps(request).encode(), ["seed"]


def _check_size(request: dict[str, Any]) -> None:
    prompt = request.get("prompt")
    many = isinstance(prompt, list) and prompt and not isinstance(prompt[0], int)
    num_prompts = len(prompt) if many and isinstance(prompt, list) else 1
    per_prompt = max(_count(request, "n"), _count(request, "best_of"))
    if num_prompts * per_prompt > MAX_SEQUENCES:
        raise TooLarge(
            f"one request may ask for at most {MAX_SEQUENCES} sequences, not "
            f"{num_prompts * per_prompt}; send several requests"
        )
    for field in ("structured_outputs", "response_format"):
        if len(json.dumps(request.get(field))) > MAX_PATTERN_CHARS:
            raise TooLarge(f"{field} exceeds {MAX_PATTERN_CHARS} characters")


def _count(request: dict[str, Any], name: str) -> int:
    value = request.get(name)
    if value is None:
        return 1
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidInput(f"{name} must be a whole number, not {value!r}")
    return value
