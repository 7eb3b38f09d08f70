"""Does the model climb the hill that its judge defines?

    python -m benchmarks.climb [--seeds 3] [--prompts 16] [--held-out 40] [--home DIR]

A controlled experiment on the real stack: vLLM samples, the workers fan out, TRL trains,
the weights are swapped; only the judge's engine is a rule with a known taste (shorter is
better: benchmarks/rule_judge.py). Each seed is a run of two iterations from one M1
(SmolLM2-135M-Instruct) to M3. Then M1 and M3 answer prompts that no run has seen, and the
rule scores them. One more run is trained on shuffled scores, from which there is nothing
to learn.

The gain is the mean over seeds of (M3's mean score - M1's), with a 95 % interval from
10,000 bootstrap samples over seeds and over prompts: all seeds answer the same prompts, so
a sample draws these once for all. The last line is one JSON object with the gain, the
interval's lower end, and the gain of the shuffled run.
"""

import argparse
import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.rule_judge import RuleJudge, rule, served
from rewardloop.cli.demo import import_seeds
from rewardloop.cli.progress import follow
from rewardloop.cli.remote import client
from rewardloop.clients.api import ApiClient
from rewardloop.clients.generator import GeneratorClient
from rewardloop.clients.replicas import ReplicaAdmin
from rewardloop.config import Sampling
from rewardloop.datasets import read_prompts
from rewardloop.embedded.home import Home
from rewardloop.embedded.stack import Stack, running
from rewardloop.errors import TrainingFailed
from rewardloop.records import Message

SEEDS = Path(__file__).parents[1] / "rewardloop" / "seeds"
NUM_ITERATIONS = 2
NUM_RESAMPLES = 10_000
SAMPLING = {"num_samples": 4, "max_tokens": 128}
CONFIG: dict[str, Any] = {
    "name": "climb",
    "sampling": SAMPLING,
    "judging": {"max_tokens": 16},
    "training": {
        "learning_rate": 3e-5,
        "learning_rate_floor": 3e-6,
        "batch_size": 8,
        "micro_batch_size": 4,
        "num_epochs": 2,
        "dropout": 0.0,
        "max_length": 384,
    },
}
console = Console()


class Experiment:
    """One stack, its rule judge, and the prompts that no run trains on."""

    def __init__(self, stack: Stack, api: ApiClient, judge: RuleJudge, num_held_out: int) -> None:
        self.stack = stack
        self.api = api
        self.judge = judge
        held_out = read_prompts(SEEDS / "evaluation.jsonl").prompts[:num_held_out]
        self.held_out = [list(prompt.messages) for prompt in held_out]

    async def trained(self, base: str, seed: int, num_prompts: int) -> str:
        """The version that two iterations make of `base`."""
        prompts = {"dataset": "seed", "num_per_iteration": num_prompts}
        config = {**CONFIG, "seed": seed, "base_version": base, "prompts": prompts}
        run = await self.api.post("/v1/runs", config)
        await self.api.post(f"/v1/runs/{run['id']}/iterations", {"count": NUM_ITERATIONS})
        views = await follow(self.api, run["id"], console, self.stack.require_alive)
        failed = [view["error"] for view in views if view["state"] == "failed"]
        if failed:
            raise TrainingFailed(failed[0])
        return str(views[-1]["new_version"])

    async def scores(self, version: str) -> Any:
        """Mean rule score of the version's answers to each held-out prompt: (num_prompts,)."""
        credentials = self.stack.home.credentials()
        url = self.stack.addresses.generator
        async with ReplicaAdmin(url, credentials.admin_key) as replica:
            await replica.activate(version)
        sampling = Sampling.model_validate(SAMPLING)
        async with GeneratorClient([url], credentials.api_key) as generator:

            async def score(prompt: list[Message]) -> float:
                samples = await generator.sample(prompt, sampling, sampling.num_samples)
                assert {sample.weight_version for sample in samples} == {version}
                return float(np.mean([rule(sample.text) for sample in samples]))

            return np.array(await asyncio.gather(*map(score, self.held_out)))


async def climb(home: Home, num_seeds: int, num_prompts: int, num_held_out: int) -> dict[str, Any]:
    judge = RuleJudge()
    with served(judge) as url:
        settings = {"REWARDLOOP_JUDGE_UPSTREAM_URL": url, "REWARDLOOP_JUDGE_UPSTREAM_MODEL": "rule"}
        async with (
            running(home, port=None, tell=console.print, settings=settings) as stack,
            client(home) as api,
        ):
            await import_seeds(api)
            base = await _base_version(api)
            experiment = Experiment(stack, api, judge, num_held_out)
            before = await experiment.scores(base)
            gains = []
            for seed in range(num_seeds):
                new = await experiment.trained(base, seed, num_prompts)
                gains.append(await _gain(experiment, f"seed {seed}", new, before))
            judge.shuffled = True
            new = await experiment.trained(base, num_seeds, num_prompts)
            shuffled = await _gain(experiment, "shuffled", new, before)
    return summary(np.array(gains), shuffled)


async def _base_version(api: ApiClient) -> str:
    """M1: the imported model, also where an earlier experiment left its own one serving."""
    models = (await api.get("/v1/models"))["items"]
    return next(str(model["id"]) for model in models if model["kind"] == "base")


async def _gain(experiment: Experiment, name: str, version: str, before: Any) -> Any:
    after = await experiment.scores(version)
    console.print(f"{name}: M1 {before.mean():.2f} -> M3 {after.mean():.2f} on held-out prompts")
    return after - before


def summary(gains: Any, shuffled: Any) -> dict[str, Any]:
    """`gains`: (num_seeds, num_prompts); `shuffled`: (num_prompts,)."""
    low, high = interval(gains)
    shuffled_low, shuffled_high = interval(shuffled[None])
    table = Table("", "gain", "95 % interval", box=None)
    table.add_row("true scores", f"{gains.mean():+.2f}", f"{low:+.2f} to {high:+.2f}")
    table.add_row(
        "shuffled", f"{shuffled.mean():+.2f}", f"{shuffled_low:+.2f} to {shuffled_high:+.2f}"
    )
    console.print(table)
    return {
        "gain": round(float(gains.mean()), 3),
        "gain_low": round(low, 3),
        "shuffled_gain": round(float(shuffled.mean()), 3),
        "shuffled_low": round(shuffled_low, 3),
        "shuffled_high": round(shuffled_high, 3),
        "gains": [round(float(g), 3) for g in gains.mean(axis=1)],
    }


def interval(gains: Any) -> tuple[float, float]:
    """95 % percentile interval of the mean of (num_seeds, num_prompts), by a bootstrap over
    seeds and over prompts. A column is one prompt for all seeds, so it is drawn as a whole."""
    random = np.random.default_rng(0)
    num_seeds, num_prompts = gains.shape
    seeds = random.integers(num_seeds, size=(NUM_RESAMPLES, num_seeds, 1))
    prompts = random.integers(num_prompts, size=(NUM_RESAMPLES, 1, num_prompts))
    means = gains[seeds, prompts].mean(axis=(1, 2))
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=16, help="in each iteration")
    parser.add_argument("--held-out", type=int, default=40)
    parser.add_argument("--home", type=Path, help="keep the stack's home here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rewardloop-climb-") as folder:
        home = Home(options.home or Path(folder) / "home")
        found = asyncio.run(climb(home, options.seeds, options.prompts, options.held_out))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
