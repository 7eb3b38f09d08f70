"""How long texts are in tokens of the model that is served.

The tokenizer is read from the served version's checkpoint. Where that folder or the library
`tokenizers` is not there (the light image has neither), lengths are told in characters, and
called so.
"""

import asyncio
import importlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from rewardloop.checkpoints import folder_of
from rewardloop.clients.http import call_once, connect
from rewardloop.config import Settings
from rewardloop.errors import RewardloopError

ENGINE_SECONDS = 3.0
"""An engine that does not say by then how much its context holds is not waited for."""


async def lengths(
    settings: Settings, version: str | None, texts: Sequence[str]
) -> list[int] | None:
    """Tokens of each text, without a chat template's; None where nobody can count them."""
    tokenizer = (
        None if version is None else _tokenizer(folder_of(settings.checkpoint_root, version))
    )
    if tokenizer is None:
        return None
    return await asyncio.to_thread(_counted, tokenizer, texts)


def _counted(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    encoded = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return [len(one.ids) for one in encoded]


@lru_cache(maxsize=2)
def _tokenizer(folder: Path) -> Any:
    """A version's files never change."""
    try:
        library = importlib.import_module("tokenizers")
    except ImportError:
        return None
    file = folder / "tokenizer.json"
    return library.Tokenizer.from_file(str(file)) if file.is_file() else None


async def context(settings: Settings) -> int | None:
    """Tokens that the engine's context holds, if the first replica says so."""
    key = settings.api_key.get_secret_value()
    urls = [settings.data_url, *settings.generator_urls]
    url = next((url for url in urls if url), None)
    if url is None:
        return None
    async with connect(url, key, timeout_seconds=ENGINE_SECONDS) as client:
        try:
            found = await call_once(client, "GET", "/v1/models")
        except RewardloopError:
            return None
    models = found.get("data") if isinstance(found, dict) else None
    first = models[0] if isinstance(models, list) and models else {}
    held = first.get("max_model_len") if isinstance(first, dict) else None
    return held if isinstance(held, int) else None
