"""Our roll-out against the same requests sent straight to the engine.

    python -m benchmarks.rollout [--prompts 24] [--rounds 2] [--stock] [--script] [--home DIR]

Both sides ask one vLLM server for 4 samples a prompt and 3 constrained
judgements a sample, with the same settings. The raw side is the best client we
can write: every prompt at once on one aiohttp session, each answer judged as soon
as it is there, nothing stored, no judge service, no queue. Ours is a whole
roll-out phase as Postgres timed it. A warm-up fills the prefix cache for both;
the sides take turns, and the median of the per-round ratios is the result.
Lengths are sampled, so tokens are shown too.

With --stock the raw client asks stock vLLM too, and with --script a plain transformers script
rolls out the first prompts (see `other_ways`); its time is scaled up to all of them.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.other_ways import PlainScript, stock_vllm
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

Round = dict[str, tuple[float, int]]
"""Seconds and completion tokens of each side."""


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


@dataclass
class Sides:
    """What a roll-out is compared with besides the raw client at our own engine."""

    stock_url: str | None = None
    script: PlainScript | None = None
    num_script_prompts: int = 0


async def compare(home: Home, options: argparse.Namespace) -> dict[str, Any]:
    prompts = [list(p.messages) for p in read_prompts(SEEDS).prompts[: options.prompts]]
    config = RunConfig.model_validate(
        {
            **presets.load("demo"),
            "name": "bench",
            "prompts": {"dataset": "bench", "num_per_iteration": options.prompts},
            "pairing": {"min_margin": 5},
        }
    )
    rows = []
    async with AsyncExitStack() as exits:
        stack = await exits.enter_async_context(running(home, port=None, tell=print))
        api = await exits.enter_async_context(client(home))
        await api.add_prompts("bench", read_prompts(SEEDS).prompts[: options.prompts])
        sides = await _sides(exits, home, options)
        key = home.credentials().api_key
        await raw(stack.addresses.generator, key, prompts, config)
        if sides.stock_url:
            await raw(sides.stock_url, key, prompts[:2], config)
        for number in range(options.rounds):
            rows.append(await _round(api, stack.addresses.generator, key, prompts, config, sides))
            _print_row(number + 1, rows[-1])
    return {**_ratios(rows), "rounds": options.rounds, "prompts": options.prompts}


async def _sides(exits: AsyncExitStack, home: Home, options: argparse.Namespace) -> Sides:
    sides = Sides(num_script_prompts=options.script_prompts)
    (model,) = (home.folder / "checkpoints").glob("smollm2-*")
    if options.stock:
        log = home.folder / "logs" / "stock_vllm.log"
        sides.stock_url = await exits.enter_async_context(stock_vllm(model, log))
    if options.script:
        sides.script = PlainScript(model)
    return sides


async def _round(
    api: ApiClient,
    url: str,
    key: str,
    prompts: list[list[Message]],
    config: RunConfig,
    sides: Sides,
) -> Round:
    """Every side once. The script's seconds are those of its few prompts, times their share."""
    found: Round = {"raw": await raw(url, key, prompts, config), "ours": await ours(api, config)}
    if sides.stock_url:
        found["stock"] = await raw(sides.stock_url, key, prompts, config)
    if sides.script:
        few = prompts[: sides.num_script_prompts]
        seconds, tokens = await asyncio.to_thread(sides.script.run, few, config)
        found["script"] = (seconds * len(prompts) / len(few), tokens * len(prompts) // len(few))
    return found


def _ratios(rows: list[Round]) -> dict[str, float]:
    def ratio(side: str, per_token: bool = False) -> float:
        pairs = [(row["ours"], row[side]) for row in rows]
        ratios = [a[0] / b[0] * ((b[1] / a[1]) if per_token else 1) for a, b in pairs]
        return round(statistics.median(ratios), 3)

    found = {
        "rollout_ratio": ratio("raw"),
        "rollout_ratio_per_token": ratio("raw", per_token=True),
    }
    for side in ("stock", "script"):
        if side in rows[0]:
            found[f"rollout_vs_{side}"] = ratio(side)
    return found


def _print_row(number: int, row: Round) -> None:
    told = [
        f"{side} {seconds:6.1f} s, {tokens:6d} tokens, {tokens / seconds:6.1f} tokens/s"
        for side, (seconds, tokens) in row.items()
    ]
    print(f"round {number}: {' | '.join(told)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--stock", action="store_true", help="ask stock vLLM too")
    parser.add_argument("--script", action="store_true", help="run the plain script too")
    parser.add_argument("--script-prompts", type=int, default=2, help="prompts of the script")
    parser.add_argument("--home", type=Path, help="keep the stack's home here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rewardloop-bench-") as folder:
        home = Home(options.home or Path(folder) / "home")
        print(json.dumps(asyncio.run(compare(home, options))))


if __name__ == "__main__":
    main()
