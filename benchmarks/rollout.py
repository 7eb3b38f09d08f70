"""Our roll-out against the same requests sent straight to the engine.

    python -m benchmarks.rollout [--prompts 24] [--rounds 2] [--home DIR]

Both sides ask one vLLM server for 4 samples a prompt and 3 constrained
judgements a sample, with the same settings. The raw side is the best client we
can write: every prompt at once on one aiohttp session, each answer judged as soon
as it is there, nothing stored, no judge service, no queue. Ours is a whole
roll-out phase as Postgres timed it. A warm-up fills the prefix cache for both;
the sides take turns, and the median of the per-round ratios is the result.
Lengths are sampled, so tokens are shown too.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

from rewardloop import presets
from rewardloop.cli.remote import client
from rewardloop.clients.api import ApiClient
from rewardloop.config import RunConfig
from rewardloop.datasets import read_prompts
from rewardloop.embedded.home import Home
from rewardloop.embedded.stack import running
from rewardloop.lifecycle import ENDED
from rewardloop.method import rubric
from rewardloop.method.nonce import nonce_of
from rewardloop.records import Message

SEEDS = Path(__file__).parents[1] / "rewardloop" / "seeds" / "prompts.jsonl"
POLL_SECONDS = 0.25


async def raw(url: str, key: str, prompts: list[list[Message]], config: RunConfig) -> Any:
    """Seconds and completion tokens of the raw side."""
    headers = {"authorization": f"Bearer {key}"}
    limit = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(url, headers=headers, connector=limit, timeout=timeout) as s:
        started = time.monotonic()
        tokens = await asyncio.gather(*(_raw_prompt(s, prompt, config) for prompt in prompts))
        return time.monotonic() - started, sum(tokens)


async def _raw_prompt(
    session: aiohttp.ClientSession, prompt: list[Message], config: RunConfig
) -> int:
    sampling, judging = config.sampling, config.judging
    body = {
        "model": "policy",
        "messages": prompt,
        "n": sampling.num_samples,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
    }
    answer = await _post(session, body)

    async def judge(text: str) -> int:
        turn: Message = {"role": "assistant", "content": text}
        nonce = nonce_of(None)
        judged = await _post(
            session,
            {
                "model": "policy",
                "messages": rubric.render([*prompt, turn], judging.mode, nonce=nonce),
                "n": judging.num_judgements,
                "temperature": judging.temperature,
                "top_p": judging.top_p,
                "max_tokens": judging.max_tokens,
                "structured_outputs": {"regex": rubric.constrained_pattern(nonce)},
            },
        )
        return int(judged["usage"]["completion_tokens"])

    texts = [choice["message"]["content"] for choice in answer["choices"]]
    return int(answer["usage"]["completion_tokens"]) + sum(await asyncio.gather(*map(judge, texts)))


async def _post(session: aiohttp.ClientSession, body: dict[str, Any]) -> Any:
    async with session.post("/v1/chat/completions", json=body) as answer:
        answer.raise_for_status()
        return await answer.json()


async def ours(api: ApiClient, config: RunConfig) -> Any:
    """Seconds and completion tokens of one whole roll-out phase.

    No pair can clear a margin of 5, so the iteration ends after its roll-out and the
    weights stay the same.
    """
    run = await api.post("/v1/runs", config.model_dump(mode="json"))
    created = await api.post(f"/v1/runs/{run['id']}/iterations", {"count": 1})
    path = f"/v1/iterations/{created['iterations'][0]['id']}"
    while (view := await api.get(path))["state"] not in ENDED:
        await asyncio.sleep(POLL_SECONDS)
    counts = view["counts"]
    assert counts["judgements"] == counts["judgements_expected"], view["error"]
    return view["seconds"]["rollout"], view["tokens"]["completion"]


async def compare(home: Home, num_prompts: int, rounds: int) -> dict[str, Any]:
    prompts = [list(p.messages) for p in read_prompts(SEEDS).prompts[:num_prompts]]
    config = RunConfig.model_validate(
        {
            **presets.load("demo"),
            "name": "bench",
            "prompts": {"dataset": "bench", "num_per_iteration": num_prompts},
            "pairing": {"min_margin": 5},
        }
    )
    rows = []
    async with running(home, port=None, tell=print) as stack, client(home) as api:
        await api.add_prompts("bench", read_prompts(SEEDS).prompts[:num_prompts])
        key = home.credentials().api_key
        await raw(stack.addresses.generator, key, prompts, config)
        for number in range(rounds):
            raw_seconds, raw_tokens = await raw(stack.addresses.generator, key, prompts, config)
            our_seconds, our_tokens = await ours(api, config)
            rows.append((our_seconds, our_tokens, raw_seconds, raw_tokens))
            _print_row(number + 1, *rows[-1])
    per_token = [(a / b) / (c / d) for a, b, c, d in rows]
    return {
        "rollout_ratio": round(statistics.median(a / c for a, _, c, _ in rows), 3),
        "rollout_ratio_per_token": round(statistics.median(per_token), 3),
        "rounds": rounds,
        "prompts": num_prompts,
    }


def _print_row(number: int, ours_s: float, ours_t: int, raw_s: float, raw_t: int) -> None:
    print(
        f"round {number}: roll-out {ours_s:6.1f} s, {ours_t:6d} tokens, {ours_t / ours_s:6.1f} "
        f"tokens/s | raw {raw_s:6.1f} s, {raw_t:6d} tokens, {raw_t / raw_s:6.1f} tokens/s | "
        f"ratio {ours_s / raw_s:.3f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--home", type=Path, help="keep the stack's home here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rewardloop-bench-") as folder:
        home = Home(options.home or Path(folder) / "home")
        print(json.dumps(asyncio.run(compare(home, options.prompts, options.rounds))))


if __name__ == "__main__":
    main()
