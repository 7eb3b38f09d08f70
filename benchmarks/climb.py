"""Does the model climb the hill that its judge defines?

    python -m benchmarks.climb [--seeds 5] [--blind-seeds 3] [--prompts 16] [--held-out 40]
                               [--home DIR]

A controlled experiment on the real stack: vLLM samples, the workers fan out, TRL trains,
the weights are swapped; only the judge's engine is a rule with a known taste
(benchmarks/rule_judge.py). Each seed is a run of two iterations from one M1
(SmolLM2-135M-Instruct) to M3, on prompts of its own. M1 and M3 answer prompts that no run
has seen, and the rule scores them. Three arms:

- *brevity*: shorter is better, at every length;
- *control*: the same seeds, prompts and rule, but for half of the prompts the rule is
  turned round. They are drawn in couples of like margin, as the brevity run of the same seed
  found them, one of each couple by a coin: so exactly half of the prompts of every size of
  margin are reversed, whatever the answers, and there is nothing to learn on the whole. How
  many of its own pairs that are is told, since not every prompt gives one;
- *blind*: a rule that length says nothing of.

Every figure is a mean over seeds of (M3's mean score - M1's), with a 95 % interval over
seeds by Student's t. M1 is sampled anew for each seed, so that the interval holds what its
own sampling does; the held-out prompts are the same for all, so it speaks of these. With
`--home`, what is done is kept, and a call that was cut off goes on where it was. The last
line is one JSON object.
"""

import argparse
import asyncio
import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.climb_results import WORDS, Arm, Results, summary
from benchmarks.rule_judge import RULES, RuleJudge, served
from rewardloop.cli.progress import follow
from rewardloop.cli.remote import client
from rewardloop.cli.terminal import Console
from rewardloop.clients.api import ApiClient
from rewardloop.clients.generator import GeneratorClient
from rewardloop.clients.replicas import ReplicaAdmin
from rewardloop.config import Sampling
from rewardloop.datasets import read_prompts
from rewardloop.embedded.home import Home
from rewardloop.embedded.stack import Stack, running
from rewardloop.errors import TrainingFailed
from rewardloop.records import Message, PromptRecord

SEEDS = Path(__file__).parents[1] / "rewardloop" / "seeds"
NUM_ITERATIONS = 2
BRIEFLY = "\n\nAnswer in one short paragraph."
"""Ends every prompt, so that most answers come to their own end before `max_tokens`."""
SAMPLING = {"num_samples": 4, "max_tokens": 128}
CONFIG: dict[str, Any] = {
    "name": "climb",
    "sampling": SAMPLING,
    "judging": {"max_tokens": 16},
    # An answer that was cut is shorter than it would have been: no side of a pair.
    "pairing": {"cut_answers": "drop"},
    "training": {
        "learning_rate": 2e-5,
        "learning_rate_floor": 2e-6,
        "batch_size": 4,
        "micro_batch_size": 4,
        "num_epochs": 2,
        "dropout": 0.0,
        "max_length": 384,
    },
}
console = Console()


def training_prompts(seed: int, num_prompts: int) -> list[PromptRecord]:
    """The prompts of one seed's run, which no other seed trains on.

    Raises:
        ValueError: there are not as many prompts.
    """
    files = ("prompts.jsonl", "validation.jsonl")
    known = [prompt for file in files for prompt in read_prompts(SEEDS / file).prompts]
    random.Random(0).shuffle(known)
    num = NUM_ITERATIONS * num_prompts
    found = known[seed * num : (seed + 1) * num]
    if len(found) < num:
        raise ValueError(
            f"seed {seed} has {len(found)} of {num} prompts: take fewer seeds, or fewer prompts "
            f"than {num_prompts} in an iteration"
        )
    return [replace(prompt, messages=briefly(prompt.messages)) for prompt in found]


def held_out_prompts(num_prompts: int) -> list[list[Message]]:
    found = read_prompts(SEEDS / "evaluation.jsonl").prompts[:num_prompts]
    return [list(briefly(prompt.messages)) for prompt in found]


def briefly(messages: Sequence[Message]) -> tuple[Message, ...]:
    *before, last = messages
    return (*before, {"role": last["role"], "content": last["content"] + BRIEFLY})


def reversed_half(margins: dict[str, float], coin: random.Random) -> list[str]:
    """One prompt of each couple of neighbours in margin, by a coin; of an odd number the last
    is a couple of its own."""
    by_margin = sorted(margins, key=lambda prompt: (margins[prompt], prompt))
    couples = [by_margin[i : i + 2] for i in range(0, len(by_margin), 2)]
    drawn = [coin.randrange(2) for _ in couples]
    return [couple[n] for couple, n in zip(couples, drawn, strict=True) if n < len(couple)]


class Experiment:
    """One stack, its rule judge, and what is known so far."""

    def __init__(self, stack: Stack, api: ApiClient, judge: RuleJudge, results: Results) -> None:
        self.stack = stack
        self.api = api
        self.judge = judge
        self.results = results
        self.held_out = held_out_prompts(results.num_held_out)

    async def measure(self, base: str, arm: Arm, seed: int) -> None:
        """M1's and M3's scores of one seed in one arm, as far as they are not known."""
        before = f"m1-{seed}"
        if before not in self.results.scores:
            self.results.save_scores(before, await self.scores(base))
        after = f"{arm}-{seed}"
        if after not in self.results.scores:
            version = await self._trained(base, arm, seed)
            self.results.save_scores(after, await self.scores(version))
        gain = self.results.gain(arm, seed)
        words, words_before = self.results.mean_words(after), self.results.mean_words(before)
        console.print(
            f"{arm}, seed {seed}: {gain:+.2f} on held-out prompts, from {words_before:.0f} words "
            f"to {words:.0f}; {len(self.results.pairs[after])} pairs of "
            f"{NUM_ITERATIONS * self.results.num_prompts} prompts",
            highlight=False,
        )

    async def _trained(self, base: str, arm: Arm, seed: int) -> str:
        """The version that two iterations make of `base`."""
        name = f"{arm}-{seed}"
        set_taste(self.judge, self.results, arm, seed)
        run_id = self.results.runs.get(name) or await self._start(base, name, seed)
        views = await follow(self.api, run_id, console, self.stack.require_alive)
        failed = [view["error"] or view["state"] for view in views if view["state"] != "succeeded"]
        if failed:
            self.results.forget_run(name)
            raise TrainingFailed(f"{name}: {failed[0]}")
        pairs = [pair async for pair in self.api.pairs(run_id)]
        self.results.save_pairs(name, pairs)
        return str(views[-1]["new_version"])

    async def _start(self, base: str, name: str, seed: int) -> str:
        num_prompts = self.results.num_prompts
        dataset = f"climb-{seed}"
        await self.api.add_prompts(dataset, training_prompts(seed, num_prompts))
        prompts = {"dataset": dataset, "num_per_iteration": num_prompts}
        config = {**CONFIG, "seed": seed, "base_version": base, "prompts": prompts}
        run = await self.api.post("/v1/runs", config, iterations=NUM_ITERATIONS)
        self.results.save_run(name, run["id"])
        return str(run["id"])

    async def scores(self, version: str) -> dict[str, list[list[float]]]:
        """By rule, and as `words`: of the version's answers to each held-out prompt."""
        credentials = self.stack.home.credentials()
        url = self.stack.addresses.generator
        async with ReplicaAdmin(url, credentials.admin_key) as replica:
            await replica.activate(version)
        sampling = Sampling.model_validate(SAMPLING)
        at_once = asyncio.Semaphore(16)
        async with GeneratorClient([url], credentials.api_key) as generator:

            async def answers(prompt: list[Message]) -> list[str]:
                async with at_once:
                    found = await generator.sample(prompt, sampling, sampling.num_samples)
                assert {sample.weight_version for sample in found} == {version}
                return [sample.text for sample in found]

            texts = await asyncio.gather(*map(answers, self.held_out))
        measures = {**RULES, WORDS: _num_words}
        return {
            name: [[measure(text) for text in each] for each in texts]
            for name, measure in measures.items()
        }


def _num_words(text: str) -> float:
    return float(len(text.split()))


def set_taste(judge: RuleJudge, results: Results, arm: Arm, seed: int) -> None:
    """How the judge scores in this arm; of the control, for this seed's prompts."""
    judge.rule = RULES[arm.rule]
    judge.reversed_prompts = frozenset()
    if arm is Arm.CONTROL:
        judge.reversed_prompts = frozenset(reversed_prompts(results, seed))


def reversed_prompts(results: Results, seed: int) -> list[str]:
    """Half of each iteration's prompts. One that gave the brevity run no pair counts as of no
    margin, since it may give the control one."""
    margins = results.margins(f"{Arm.BREVITY}-{seed}")
    texts = [p.messages[-1]["content"] for p in training_prompts(seed, results.num_prompts)]
    num = results.num_prompts
    coin = random.Random(seed)
    halves = [
        reversed_half({text: margins.get(text, 0.0) for text in texts[i : i + num]}, coin)
        for i in range(0, len(texts), num)
    ]
    return [text for half in halves for text in half]


async def climb(home: Home, results: Results, plan: Sequence[tuple[Arm, int]]) -> dict[str, Any]:
    judge = RuleJudge()
    for arm, seed in unfinished(results, plan):
        # The stack goes on with a run that was cut off as soon as it is up.
        set_taste(judge, results, arm, seed)
    with served(judge) as url:
        settings = {"REWARDLOOP_JUDGE_UPSTREAM_URL": url, "REWARDLOOP_JUDGE_UPSTREAM_MODEL": "rule"}
        async with (
            running(home, port=None, tell=console.print, settings=settings) as stack,
            client(home) as api,
        ):
            base = await _base_version(api)
            experiment = Experiment(stack, api, judge, results)
            failed = await _measure_all(experiment, base, plan)
    measured = [(arm, seed) for arm, seed in plan if f"{arm}-{seed}" in results.scores]
    for arm, seed in measured:
        if arm is Arm.CONTROL:
            _tell_reversed(results, seed)
    found = summary(results, measured, console)
    if failed:
        told = "; ".join(failed)
        raise TrainingFailed(f"{told}. The same call with the same --home tries these again")
    return found


def unfinished(results: Results, plan: Sequence[tuple[Arm, int]]) -> list[tuple[Arm, int]]:
    """Runs that have begun and are not measured: one at most, since they follow each other."""
    names = results.runs.keys() - results.scores.keys()
    return [(arm, seed) for arm, seed in plan if f"{arm}-{seed}" in names]


async def _measure_all(
    experiment: Experiment, base: str, plan: Sequence[tuple[Arm, int]]
) -> list[str]:
    """Measure every arm and seed. A run that fails does not end the hour: the others go on,
    and the failures are returned."""
    failed = []
    for arm, seed in plan:
        if arm is Arm.CONTROL and f"{Arm.BREVITY}-{seed}" not in experiment.results.pairs:
            failed.append(f"{arm}-{seed}: the run that it reverses failed")
            continue
        try:
            await experiment.measure(base, arm, seed)
        except TrainingFailed as error:
            console.print(f"failed: {error.message}", highlight=False)
            failed.append(error.message)
    return failed


def _tell_reversed(results: Results, seed: int) -> None:
    turned, pairs = set(reversed_prompts(results, seed)), results.pairs[f"{Arm.CONTROL}-{seed}"]
    num = sum(pair["prompt"] in turned for pair in pairs)
    console.print(f"control, seed {seed}: {num} of {len(pairs)} pairs reversed", highlight=False)


async def _base_version(api: ApiClient) -> str:
    """M1: the imported model, also where an earlier run left its own one serving."""
    models = (await api.get("/v1/models"))["items"]
    return next(str(model["id"]) for model in models if model["kind"] == "base")


def planned(num_seeds: int, num_blind_seeds: int) -> list[tuple[Arm, int]]:
    """Every seed's climb with its control after it, then the blind ones."""
    both = [(arm, seed) for seed in range(num_seeds) for arm in (Arm.BREVITY, Arm.CONTROL)]
    return both + [(Arm.BLIND, seed) for seed in range(num_blind_seeds)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--blind-seeds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=16, help="in each iteration")
    parser.add_argument("--held-out", type=int, default=40)
    parser.add_argument("--home", type=Path, help="keep the stack's home and the results here")
    options = parser.parse_args()
    plan = planned(options.seeds, options.blind_seeds)
    for seed in range(max(options.seeds, options.blind_seeds)):
        training_prompts(seed, options.prompts)  # too few are told before the stack starts
    with tempfile.TemporaryDirectory(prefix="rewardloop-climb-") as folder:
        home = Home(options.home or Path(folder) / "home")
        path = home.folder / "climb.json"
        results = Results.of(path, options.prompts, options.held_out, CONFIG)
        found = asyncio.run(climb(home, results, plan))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
