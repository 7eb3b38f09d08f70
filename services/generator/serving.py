"""Whether this machine's engine serves adapters on their base, and what vLLM must know for that."""

import re
from pathlib import Path

from rewardloop.config import Settings
from rewardloop.servable.weights import read_layout
from services.generator.adapters import Adapters
from services.generator.machine import has_gpu

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""For which vLLM 0.32 can be started."""

_IN_BLOCK = re.compile(r"\.\d+\..*\.weight$")


def serves_adapters(settings: Settings) -> bool:
    """vLLM's CPU build serves them at an eighth of the speed of merged weights."""
    return settings.adapters == "serve" or (settings.adapters is None and has_gpu())


def adapters_of(settings: Settings) -> Adapters:
    if not serves_adapters(settings):
        return Adapters()
    return Adapters(settings.max_adapters, settings.max_adapter_rank)


def options(settings: Settings, base: Path) -> list[str]:
    """vLLM's own, for adapters of the full weights in `base`, with no more of them in its cache
    than are ever loaded."""
    if not serves_adapters(settings):
        return []
    rank = next(known for known in VLLM_RANKS if known >= settings.max_adapter_rank)
    number = str(settings.max_adapters)
    return [
        "--enable-lora",
        *("--max-lora-rank", str(rank)),
        *("--max-loras", number),
        *("--max-cpu-loras", number),
        *("--lora-target-modules", *linear_layers(base)),
    ]


def linear_layers(folder: Path) -> list[str]:
    """Ends of the names of the matrices in the model's numbered blocks.

    The output head is none of them. Where vLLM can add an adapter to it, it sends all logits
    through one that is sized for sampled tokens, and a request for the log-probabilities of a
    prompt kills the engine (vLLM 0.32, `add_lora_logits` on a CPU).
    """
    layout = read_layout(folder)
    blocks = [n for n, t in layout.items() if len(t.shape) == 2 and _IN_BLOCK.search(n)]
    return sorted({name.removesuffix(".weight").rpartition(".")[2] for name in blocks})
