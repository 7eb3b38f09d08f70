"""Puts `nucleus.keep_nucleus` where vLLM's sampler looks for its own, and tells whether it stands.

Two halves that meet over vLLM's `collective_rpc`: `install` runs in the gate, before the engine's
first request; `sort_heads_only` runs in each worker process. Invariants:

- only where vLLM samples on a CPU by its PyTorch functions: on a GPU vLLM's own kernels run;
- only where both functions agree on a sample, so another vLLM is never sampled wrongly;
- otherwise vLLM's own stays, and log and metrics say why: it costs speed and nothing else.

Can go when vLLM's CPU sampler no longer sorts the whole vocabulary.
"""

import asyncio
import functools
import logging
from typing import Any

from rewardloop import telemetry
from rewardloop.errors import UpstreamUnavailable

logger = logging.getLogger("rewardloop.generator")

HEAD, VLLM = "head", "vllm"
INSTALL_SECONDS = 60.0


async def install(engine: Any) -> None:
    """Ask every worker of the engine to sort heads only, and tell where one does not.

    Raises:
        UpstreamUnavailable: the engine did not answer in time; another try may be in time.
    """
    try:
        async with asyncio.timeout(INSTALL_SECONDS):
            reports = await engine.collective_rpc("sort_heads_only")
    except TimeoutError as error:
        told = f"the engine did not choose its sampler within {INSTALL_SECONDS:.0f} s"
        raise UpstreamUnavailable(told) from error
    reasons = sorted({report["reason"] for report in reports if report["reason"]})
    telemetry.TOP_P_SORTS_ALL.set(bool(reasons))
    if any(report["sampler"] == HEAD for report in reports):
        logger.info("top-p sorts the head of each distribution only")
    if reasons:
        logger.warning(
            "top-p sorts the whole vocabulary for every token, which about halves this engine's "
            "speed; what is sampled is the same: %s",
            "; ".join(reasons),
        )


def sort_heads_only(on: bool = True) -> dict[str, str | None]:
    """In a worker: whose filter is used from now on, and the reason where a CPU keeps vLLM's."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return _report(VLLM)
    try:
        return _replace(on)
    except Exception as error:  # another vLLM may fail in any way, and must sample all the same
        return _report(VLLM, f"this vLLM's sampler is not the one that is known ({error!r})")


def _replace(on: bool) -> dict[str, str | None]:
    from vllm.triton_utils import HAS_TRITON
    from vllm.v1.sample.ops import topk_topp_sampler

    from services.generator.nucleus import keep_nucleus

    if HAS_TRITON:
        return _report(VLLM, "vLLM samples by Triton on this CPU, so its PyTorch filter is unused")
    current = topk_topp_sampler.apply_top_k_top_p_pytorch
    vllms_own = getattr(current, "vllms_own", current)
    topk_topp_sampler.apply_top_k_top_p_pytorch = vllms_own
    if not on:
        return _report(VLLM)
    sort = functools.partial(vllms_own, allow_cpu_sync=True)

    @functools.wraps(vllms_own)
    def filtered(logits: Any, k: Any, p: Any, allow_cpu_sync: bool = False) -> Any:
        return keep_nucleus(logits, k, p, sort)

    filtered.vllms_own = vllms_own  # type: ignore[attr-defined]
    if not _agrees(topk_topp_sampler.apply_top_k_top_p, filtered):
        return _report(VLLM, "this vLLM keeps other tokens than ours on a sample")
    topk_topp_sampler.apply_top_k_top_p_pytorch = filtered
    return _report(HEAD)


def _agrees(vllms_own: Any, ours: Any) -> bool:
    """Whether both keep the same logits of a sample.

    Its rows are peaked, flat, without top-p and wide, with ties as a bfloat16 engine has them,
    without top-k and with it.
    """
    import torch

    noise = torch.Generator().manual_seed(0)  # its own: the engine's random state stays
    logits_BV = torch.randn(4, 8192, generator=noise) * torch.tensor([[4.0], [0.1], [2.0], [1.0]])
    logits_BV = logits_BV.bfloat16().float()
    p_B = torch.tensor([0.9, 0.9, 1.0, 0.5])
    for k_B in (None, torch.tensor([50, 8192, 8192, 3], dtype=torch.int32)):
        theirs_BV = vllms_own(logits_BV.clone(), k_B, p_B)
        ours_BV = ours(logits_BV.clone(), k_B, p_B)
        # Sorted, because which of two equals stays is left to chance.
        if not torch.equal(theirs_BV.sort(-1).values, ours_BV.sort(-1).values):
            return False
    return True


def _report(sampler: str, reason: str | None = None) -> dict[str, str | None]:
    return {"sampler": sampler, "reason": reason}
