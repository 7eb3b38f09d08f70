"""What the GPU check does with vLLM, where its CUDA build is installed.

The engine samples and sleeps, a training has the GPU, the engine wakes with what was trained, and
the canaries say whose weights it has: each is asked before and after, so that an engine which
kept the old ones would be seen. An adapter is served beside its base, and compared with the
canaries of the same adapter merged. vLLM runs in this process, eagerly: graphs would double its
speed and its start.
"""

import asyncio
import io
import json
import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from random import Random
from statistics import mean
from typing import Any

import torch

from benchmarks.gpu_check_training import GIB, Training, task_of
from rewardloop import checkpoints
from services.trainer import adapters, dpo
from services.trainer.canaries import write_canaries
from services.trainer.child import run_child

Say = Callable[[dict[str, Any]], None]
NUM_PROMPTS = 64
NUM_TOKENS = 256
TRAINED = Training("engine-training", "", "paper", "dpo", num_steps=2)
ADAPTED = Training("engine-adapter", "", "8b-80gb", "dpo", num_steps=2)


def run(base: Path, folder: Path, say: Say, tiny: bool = False) -> None:
    """`tiny` is about the training's rows, not about the model."""
    engine = Engine(base)
    say({"start_seconds": engine.start_seconds})
    say(engine.sampled())
    write_canaries(base)
    say({"base_nats": engine.nats(base)})
    trained = _with_higher_rate(task_of(TRAINED, base, folder / "trained", tiny))
    with _Clock() as asleep:
        freed = engine.sleep()
    say({"sleep_seconds": asleep.seconds, "freed_gib": freed})
    with _Clock() as training:
        asyncio.run(_trained(trained))
    say({"train_and_publish_seconds": training.seconds})
    with _Clock() as waking:
        engine.wake(folder / "trained")
    say({"wake_and_swap_seconds": waking.seconds, "trained_nats": engine.nats(folder / "trained")})
    say({"bound": _bound(folder / "trained"), "base_nats_after": engine.nats(base)})
    with _Clock() as back:
        engine.reload(base)
    say({"reload_seconds": back.seconds, "base_nats_again": engine.nats(base)})
    adapter = _adapter(base, folder, tiny)
    say({"adapter_nats": engine.nats(adapter, adapter)})
    say({"base_nats_for_adapter": engine.nats(adapter)})


def _with_higher_rate(task: dict[str, Any]) -> dict[str, Any]:
    """At the paper's rate, a few steps would hide behind bf16's rounding."""
    task["config"] |= {"learning_rate": 1e-4, "learning_rate_floor": 1e-5}
    return task


async def _trained(task: dict[str, Any]) -> None:
    async for _ in run_child("services.trainer.dpo", task):
        pass


def _adapter(base: Path, folder: Path, tiny: bool) -> Path:
    """Trained and written with its canaries, which are those of its merged weights."""
    task = _with_higher_rate(task_of(ADAPTED, base, folder / "adapter", tiny))
    trainer = dpo.build(task, io.StringIO())
    trainer.train()
    adapters.save(trainer.model, trainer.processing_class, task)
    return folder / "adapter"


class Engine:
    """vLLM in this process; speaks token ids."""

    def __init__(self, model: Path, memory: float = 0.2) -> None:
        # The engine's own process would hide its memory from us.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        if find_spec("flashinfer") is None:  # vLLM 0.26 imports it for sampling, there or not
            os.environ.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")
        from vllm import LLM

        with _Clock() as starting:
            self._llm = LLM(
                model=str(model),
                dtype="bfloat16",
                max_model_len=2048,
                gpu_memory_utilization=memory,
                enforce_eager=True,
                enable_sleep_mode=True,
                enable_lora=True,
                max_lora_rank=32,
                skip_tokenizer_init=True,
            )
        self.start_seconds = starting.seconds

    def sampled(self) -> dict[str, Any]:
        """As the preset samples, but to the full length."""
        from vllm import SamplingParams

        random = Random(0)
        prompts = [
            {"prompt_token_ids": random.choices(range(3, 250), k=100)} for _ in range(NUM_PROMPTS)
        ]
        how = SamplingParams(
            temperature=0.7, top_p=0.9, max_tokens=NUM_TOKENS, ignore_eos=True, detokenize=False
        )
        with _Clock() as sampling:
            found = self._llm.generate(prompts, how, use_tqdm=False)
        num = sum(len(one.outputs[0].token_ids) for one in found)
        return {"sampled_tokens_per_second": round(num / sampling.seconds, 1)}

    def sleep(self) -> float:
        """Without keeping the weights; returns how much GPU memory came free, in GiB."""
        before = torch.cuda.mem_get_info()[0]
        self._llm.sleep(level=2)
        return round((torch.cuda.mem_get_info()[0] - before) / GIB, 2)

    def wake(self, model: Path) -> None:
        self._llm.wake_up(tags=["weights"])
        self.reload(model)
        self._llm.wake_up(tags=["kv_cache"])

    def reload(self, model: Path) -> None:
        self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(model)})
        self._llm.reset_prefix_cache()

    def nats(self, model: Path, adapter: Path | None = None) -> float:
        """Mean difference between the model's canaries and what the engine says of them."""
        from vllm import SamplingParams
        from vllm.lora.request import LoRARequest

        canaries = json.loads((model / checkpoints.CANARIES).read_text())["canaries"]
        prompts = [
            {"prompt_token_ids": one["prompt_token_ids"] + one["continuation_token_ids"]}
            for one in canaries
        ]
        how = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        lora = LoRARequest(adapter.name, 1, str(adapter)) if adapter else None
        found = self._llm.generate(prompts, how, use_tqdm=False, lora_request=lora)
        return round(
            mean(
                abs(found_logp - said)
                for one, answer in zip(canaries, found, strict=True)
                for found_logp, said in zip(_logprobs(answer, one), one["logprobs"], strict=True)
            ),
            5,
        )


def _logprobs(answer: Any, canary: dict[str, Any]) -> list[float]:
    """Of the continuation's tokens, given what stands before each."""
    first = len(canary["prompt_token_ids"])
    tokens = canary["continuation_token_ids"]
    return [
        answer.prompt_logprobs[first + place][token].logprob for place, token in enumerate(tokens)
    ]


def _bound(model: Path) -> float:
    """As a swap has it (services/generator/swap.py)."""
    said = json.loads((model / checkpoints.CANARIES).read_text())
    return max(0.05, 1.5 * float(said["rounding_nats"]))


class _Clock:
    """Seconds that its block took."""

    seconds = 0.0

    def __enter__(self) -> "_Clock":
        self._began = time.perf_counter()
        return self

    def __exit__(self, *_: Any) -> None:
        torch.cuda.synchronize()
        self.seconds = round(time.perf_counter() - self._began, 2)
