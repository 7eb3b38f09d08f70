"""Two other ways to roll out, for `benchmarks.rollout`: stock vLLM, and a plain script.

Stock vLLM is its server as it starts when nothing is chosen: float32 as the checkpoint is, its own
top-p, its own threads. Only the size of the key-value cache is ours, since the default takes nine
tenths of the memory, which two engines cannot both have.

The script is what public self-rewarding repositories do: transformers, one prompt at a time, 4
samples in one call of `generate`, then 3 judgements of each. It judges freely, since `generate`
knows no grammar, up to as many tokens as a constrained judge may write.
"""

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from rewardloop.config import RunConfig
from rewardloop.method import rubric
from rewardloop.method.nonce import nonce_of
from rewardloop.records import Message

START_SECONDS = 300
CHOSEN_BY_US = ("VLLM_CPU_OMP_THREADS_BIND", "OMP_NUM_THREADS", "GOMP_SPINCOUNT")


@asynccontextmanager
async def stock_vllm(model: Path, log: Path) -> AsyncIterator[str]:
    """The address of a vLLM server with stock settings, which writes to `log`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(model), "--served-model-name", "policy", "--max-model-len", "2048"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    environment = {k: v for k, v in os.environ.items() if k not in CHOSEN_BY_US}
    environment["VLLM_CPU_KVCACHE_SPACE"] = "2"
    with log.open("w") as output:
        process = await asyncio.create_subprocess_exec(
            *command, env=environment, stdout=output, stderr=output
        )
    try:
        url = f"http://127.0.0.1:{port}"
        await _answering(url, process, log)
        yield url
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _answering(url: str, process: asyncio.subprocess.Process, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < deadline and process.returncode is None:
            try:
                async with session.get(f"{url}/health") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.5)
    raise SystemExit(f"stock vLLM did not start; see {log}")


class PlainScript:
    def __init__(self, model: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(model)
        self._model: Any = AutoModelForCausalLM.from_pretrained(model)

    def run(self, prompts: list[list[Message]], config: RunConfig) -> tuple[float, int]:
        """Seconds and completion tokens of all samples and judgements of these prompts."""
        sampling, judging = config.sampling, config.judging
        started, num_tokens = time.monotonic(), 0
        for prompt in prompts:
            texts, written = self._written(prompt, sampling, sampling.num_samples)
            num_tokens += written
            for text in texts:
                turn: Message = {"role": "assistant", "content": text}
                judged = rubric.render([*prompt, turn], judging.mode, nonce=nonce_of(None))
                num_tokens += self._written(judged, judging, judging.num_judgements)[1]
        return time.monotonic() - started, num_tokens

    def _written(
        self, messages: list[Message], settings: Any, num_texts: int
    ) -> tuple[list[str], int]:
        """The texts and how many tokens they have, without their ends and padding."""
        inputs = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        outputs = self._model.generate(
            **inputs,
            do_sample=True,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_new_tokens=settings.max_tokens,
            num_return_sequences=num_texts,
        )
        written = outputs[:, inputs["input_ids"].shape[1] :]
        texts = self._tokenizer.batch_decode(written, skip_special_tokens=True)
        return texts, int((written != self._tokenizer.pad_token_id).sum())
