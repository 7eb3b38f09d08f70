"""Judging by expectation against three constrained judgements: what it costs, what it agrees with.

    python -m benchmarks.expected [--prompts 32] [--rounds 3] [--agreement-prompts 16] [--home DIR]

One vLLM server, SmolLM2-135M as its own judge, through the judge service. Both sides judge the
same answers, 4 to a prompt, all of them at once, and take turns; the median of the per-round
ratios of seconds is the result. An answer is judged once in a run, so its prompt must not be in
the prefix cache: each round and side begins the request with a word of its own, behind which
nothing is cached. (The rubric before it is, for both.)

For the agreement the same answers are judged 60 times more, constrained. Of every two answers
to one prompt whose 60 judgements differ in their mean, how many does each side order alike? An
answer that ties with another counts as half. The three judgements are not among the 60.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, combinations
from pathlib import Path
from typing import Any

from rewardloop import presets
from rewardloop.clients.generator import GeneratorClient
from rewardloop.clients.judge import JudgeClient
from rewardloop.config import Judging, RunConfig
from rewardloop.datasets import read_prompts
from rewardloop.embedded.home import Home
from rewardloop.embedded.stack import running
from rewardloop.records import JudgementMode, Message, WrittenJudgement, mean_of_parsed

SEEDS = Path(__file__).parents[1] / "rewardloop" / "seeds" / "prompts.jsonl"
NUM_MANY = 60
IN_ONE_REQUEST = 30
"""The judge service takes at most 32."""

Prompt = tuple[Message, ...]
Answered = list[tuple[Prompt, list[str]]]


@dataclass(frozen=True)
class Cost:
    seconds: float
    prompt_tokens: int
    completion_tokens: int


async def sampled(generator: GeneratorClient, config: RunConfig, prompts: list[Prompt]) -> Answered:
    found = await asyncio.gather(
        *(generator.sample(p, config.sampling, config.sampling.num_samples) for p in prompts)
    )
    return [(p, [s.text for s in each]) for p, each in zip(prompts, found, strict=True)]


def marked(prompt: Prompt, word: str) -> Prompt:
    """The same request, with a word before it that no other round has."""
    first, *rest = prompt
    return ({**first, "content": f"{word}: {first['content']}"}, *rest)


async def judged(
    judge: JudgeClient, answered: Answered, judging: Judging, count: int, word: str
) -> list[list[list[WrittenJudgement]]]:
    """Of each prompt and answer, `count` judgements."""

    async def of_prompt(prompt: Prompt, answers: list[str]) -> list[list[WrittenJudgement]]:
        asked = marked(prompt, word)
        return await asyncio.gather(*(judge.judge(asked, a, judging, count) for a in answers))

    return await asyncio.gather(*(of_prompt(*item) for item in answered))


def _each(found: list[list[list[WrittenJudgement]]]) -> Iterator[list[WrittenJudgement]]:
    return (written for answers in found for written in answers)


async def timed(
    judge: JudgeClient, answered: Answered, judging: Judging, word: str
) -> tuple[Cost, list[list[float | None]]]:
    started = time.monotonic()
    found = await judged(judge, answered, judging, judging.num_judgements, word)
    seconds = time.monotonic() - started
    cost = Cost(
        seconds,
        sum(written[0].prompt_tokens for written in _each(found)),
        sum(one.completion_tokens for written in _each(found) for one in written),
    )
    return cost, means(found)


def means(found: list[list[list[WrittenJudgement]]]) -> list[list[float | None]]:
    return [
        [mean_of_parsed(one.verdict.score for one in written) for written in answers]
        for answers in found
    ]


def agreement(
    scores: list[list[float | None]], wanted: list[list[float | None]]
) -> tuple[float, int]:
    """The share of pairs ordered alike, a tie as half, and the number of pairs."""
    alike = []
    for ours, theirs in zip(scores, wanted, strict=True):
        for i, j in combinations(range(len(ours)), 2):
            a, b, x, y = ours[i], ours[j], theirs[i], theirs[j]
            if a is None or b is None or x is None or y is None or x == y:
                continue
            alike.append(0.5 if a == b else float((a > b) == (x > y)))
    return (statistics.fmean(alike) if alike else float("nan")), len(alike)


async def many(
    judge: JudgeClient, answered: Answered, judging: Judging, num: int
) -> list[list[float | None]]:
    """The means of so many judgements, asked for in several requests."""
    parts = [
        await judged(judge, answered, judging, IN_ONE_REQUEST, "Many")
        for _ in range(num // IN_ONE_REQUEST)
    ]
    joined = [
        [list(chain.from_iterable(of_answer)) for of_answer in zip(*of_prompt, strict=True)]
        for of_prompt in zip(*parts, strict=True)
    ]
    return means(joined)


async def compare(home: Home, options: argparse.Namespace) -> dict[str, Any]:
    config = RunConfig.model_validate(presets.load("demo"))
    three, expected = config.judging, config.judging.in_mode(JudgementMode.EXPECTED)
    prompts = [p.messages for p in read_prompts(SEEDS).prompts[: options.prompts]]
    async with running(home, port=None, tell=print) as stack:
        key = home.credentials().api_key
        async with (
            GeneratorClient([stack.addresses.generator], key) as generator,
            JudgeClient(stack.addresses.judge, key) as judge,
        ):
            answered = await sampled(generator, config, prompts)
            for judging in (three, expected):  # compiles what has to be
                await timed(judge, answered[:2], judging, "Warm")
            costs = [
                await _round(judge, answered, three, expected, n) for n in range(options.rounds)
            ]
            found = await _agreement(judge, answered[: options.agreement_prompts], three, expected)
    return {
        "expected_cost_ratio": _median(costs, lambda c: c.seconds),
        "expected_token_ratio": _median(costs, lambda c: c.prompt_tokens + c.completion_tokens),
        "expected_completion_ratio": _median(costs, lambda c: c.completion_tokens),
        **found,
        "answers": sum(len(answers) for _, answers in answered),
        "rounds": options.rounds,
    }


def _median(costs: list[tuple[Cost, Cost]], of: Any) -> float:
    return round(statistics.median(of(ours) / of(theirs) for ours, theirs in costs), 3)


async def _round(
    judge: JudgeClient, answered: Answered, three: Judging, expected: Judging, number: int
) -> tuple[Cost, Cost]:
    theirs, _ = await timed(judge, answered, three, f"Task {number}A")
    ours, scores = await timed(judge, answered, expected, f"Task {number}B")
    missing = sum(score is None for each in scores for score in each)
    for name, cost in (("3 constrained", theirs), ("expected", ours)):
        print(
            f"round {number + 1}: {name:14} {cost.seconds:7.1f} s, {cost.prompt_tokens:7d} prompt "
            f"tokens, {cost.completion_tokens:6d} written",
            flush=True,
        )
    print(f"round {number + 1}: ratio {ours.seconds / theirs.seconds:.3f}; unscored {missing}")
    return ours, theirs


async def _agreement(
    judge: JudgeClient, answered: Answered, three: Judging, expected: Judging
) -> dict[str, Any]:
    wanted = await many(judge, answered, three, NUM_MANY)
    _, by_three = await timed(judge, answered, three, "Many")
    _, by_expectation = await timed(judge, answered, expected, "Many")
    of_three, num = agreement(by_three, wanted)
    of_expected, _ = agreement(by_expectation, wanted)
    print(f"agreement with {NUM_MANY} on {num} pairs: expected {of_expected:.3f}, 3 {of_three:.3f}")
    return {
        "agreement_expected": round(of_expected, 3),
        "agreement_three": round(of_three, 3),
        "agreement_pairs": num,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--agreement-prompts", type=int, default=16)
    parser.add_argument("--home", type=Path, help="keep the stack's home here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rewardloop-bench-") as folder:
        home = Home(options.home or Path(folder) / "home")
        print(json.dumps(asyncio.run(compare(home, options))))


if __name__ == "__main__":
    main()
