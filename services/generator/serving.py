"""Whether this machine's engine serves adapters on their base, and what vLLM must know for that."""

from rewardloop.config import Settings
from services.generator.adapters import Adapters
from services.generator.machine import has_gpu

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""For which vLLM 0.32 can be started."""


def serves_adapters(settings: Settings) -> bool:
    """vLLM's CPU build serves them at an eighth of the speed of merged weights."""
    return settings.adapters == "serve" or (settings.adapters is None and has_gpu())


def adapters_of(settings: Settings) -> Adapters:
    if not serves_adapters(settings):
        return Adapters()
    return Adapters(settings.max_adapters, settings.max_adapter_rank)


def options(settings: Settings) -> list[str]:
    """vLLM's own, with no more adapters in its cache than are ever loaded."""
    if not serves_adapters(settings):
        return []
    rank = next(known for known in VLLM_RANKS if known >= settings.max_adapter_rank)
    number = str(settings.max_adapters)
    return [
        "--enable-lora",
        *("--max-lora-rank", str(rank)),
        *("--max-loras", number),
        *("--max-cpu-loras", number),
    ]
