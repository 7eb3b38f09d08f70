"""How much goes through a forward pass, where the config leaves that to memory.

It is reckoned, not tried, and on a CPU from all memory, not from what is free now, so that the
same training on the same machine always makes the same passes and ends bit for bit the same. Of
a GPU it is what other processes leave. What was resolved is told with the training, and kept
beside its saved states.

With L layers of width H, feed-forward width I, vocabulary V, and weights in float32 under a bf16
autocast, one token holds about L (60 H + 8 I) + 10 V bytes until the backward pass; with
activation checkpointing 4 L H, one layer's share and the vocabulary's. Dropout on attention
keeps its scores, 7 bytes for each head and each token that is seen. Weights take 18 bytes each
where they are trained (with a copy in bf16, the gradient and AdamW's two moments), 2 where they
are the base of adapters.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from services.trainer.grouping import Limit
from services.trainer.saved_state import PASSES, States

AUTO = "auto"
SHARE = {"cpu": 0.4, "cuda": 0.85}
"""Of the device's memory: a CPU's belongs to engines and databases too."""
MAX_TOKENS = {"cpu": 2048, "cuda": 16_384}
"""Enough to keep the device busy."""
CGROUP = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, slots=True)
class Passes:
    """How a training's forward passes are made."""

    limit: Limit
    gradient_checkpointing: bool

    def told(self) -> dict[str, Any]:
        return {**asdict(self.limit), "gradient_checkpointing": self.gradient_checkpointing}


def passes_of(
    config: dict[str, Any], model: Any, states: States | None, device: str, num_bytes: int
) -> Passes:
    """Those that the training's saved states were made with; else what the config says, or what
    fits into the device's memory of `num_bytes`."""
    known = states.folder / PASSES if states else None
    if known is not None and known.exists():
        found = json.loads(known.read_text())
        return Passes(Limit(**found["limit"]), found["gradient_checkpointing"])
    passes = reckon(config, model, num_bytes * SHARE[device], MAX_TOKENS[device])
    if known is not None:
        known.write_text(json.dumps(asdict(passes)))
    return passes


def reckon(config: dict[str, Any], model: Any, num_bytes: float, max_tokens: int) -> Passes:
    """`micro_batch_size` as it is or, of "auto", as many tokens as fit into `num_bytes`.

    Activations are checkpointed only where less than one row of `max_length` would fit.
    """
    free = num_bytes - _fixed_bytes(model, config["weights"]["kind"] == "full")
    longest, wanted = 2 * config["max_length"], config["micro_batch_size"]
    num_seen = longest if config["dropout"] else 0
    plain = int(free // bytes_of_token(model.config, num_seen))
    if wanted != AUTO:
        return Passes(Limit(num_rows=wanted), plain < wanted * longest)
    if plain >= longest:
        return Passes(Limit(num_tokens=min(plain, max_tokens)), False)
    fits = int(max(0, free) // bytes_of_token(model.config, num_seen, checkpointing=True))
    return Passes(Limit(num_tokens=min(max(fits, 1), max_tokens)), True)


def of_machine() -> int:
    """Bytes of main memory that this process may use."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return int(min(installed, int(CGROUP.read_text())))
    except (OSError, ValueError):  # no such file, or "max"
        return int(installed)


def _fixed_bytes(model: Any, all_are_trained: bool) -> int:
    num_weights = sum(weight.numel() for weight in model.parameters())
    return int(num_weights * (18 if all_are_trained else 2))


def bytes_of_token(config: Any, num_seen: int = 0, checkpointing: bool = False) -> int:
    text = config.get_text_config()
    width, layers = text.hidden_size, text.num_hidden_layers
    layer = 60 * width + 8 * (getattr(text, "intermediate_size", None) or 4 * width)
    layer += 7 * num_seen * text.num_attention_heads
    kept = layer + 4 * layers * width if checkpointing else layers * layer
    return int(kept + 10 * text.vocab_size)
