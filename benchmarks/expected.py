"""Judging by expectation against three constrained judgements: what it costs, what it agrees with.

    python -m benchmarks.expected [--answers 128] [--rounds 3] [--agreement-answers 48] [--home DIR]

One vLLM server, SmolLM2-135M as the judge, and the human-ranked answers that ship, as many of
them as are asked for. Both sides ask the engine what the judge service would ask it, by the same
code, for all answers at once; they take turns, and the median of the per-round ratios of seconds
is the result. An answer is judged once in a run, so its prompt must not be in the prefix cache:
each round and side begins the request with a word of its own, behind which nothing is cached.
(The rubric before it is, for both.)

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
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import aiohttp

from rewardloop import presets
from rewardloop.clients.completions import choices_of, text_of, usage_of
from rewardloop.config import Judging, RunConfig
from rewardloop.datasets import read_ranked
from rewardloop.embedded.home import Home
from rewardloop.embedded.stack import running
from rewardloop.method.judge_call import JudgeCall
from rewardloop.method.nonce import nonce_of
from rewardloop.records import JudgementMode, Message, mean_of_parsed

SEEDS = Path(__file__).parents[1] / "rewardloop" / "seeds" / "ranked.jsonl"
NUM_MANY = 60

Answered = list[tuple[tuple[Message, ...], list[str]]]
"""Prompts with their answers."""
Scores = list[list[float | None]]
"""Of each prompt's answers."""


@dataclass(frozen=True)
class Judged:
    seconds: float
    prompt_tokens: int
    completion_tokens: int
    scores: Scores


@dataclass(frozen=True)
class Engine:
    session: aiohttp.ClientSession

    async def judged(self, answered: Answered, how: Judging, word: str) -> Judged:
        """Every answer at once; `word` begins each request."""
        started = time.monotonic()
        found = await asyncio.gather(
            *(self._answer(marked(prompt, word), a, how) for prompt, each in answered for a in each)
        )
        scores = iter(score for score, _, _ in found)
        return Judged(
            time.monotonic() - started,
            sum(num for _, num, _ in found),
            sum(num for _, _, num in found),
            [[next(scores) for _ in each] for _, each in answered],
        )

    async def _answer(
        self, prompt: list[Message], answer: str, how: Judging
    ) -> tuple[float | None, int, int]:
        """The mean score, and the tokens read and written."""
        call = JudgeCall(
            [*prompt, Message(role="assistant", content=answer)],
            how.mode,
            nonce_of(None),
            num_choices=how.num_judgements,
            temperature=how.temperature,
            top_p=how.top_p,
            max_tokens=how.max_tokens,
        )
        async with self.session.post("/v1/chat/completions", json=call.body("policy")) as told:
            told.raise_for_status()
            body = await told.json()
        choices = choices_of(body, how.num_judgements, "the engine")
        scores = [_score(call, choice) for choice in choices]
        return mean_of_parsed(scores), *usage_of(body)


def _score(call: JudgeCall, choice: dict[str, Any]) -> float | None:
    if call.is_expected:
        found = call.expectation(choice, text_of(choice), "")
    else:
        found = call.reading(text_of(choice), choice.get("finish_reason"), "")
    score: float | None = found["judgement"]["score"]
    return score


def marked(prompt: tuple[Message, ...], word: str) -> list[Message]:
    """The same request, with a word before it that no other round has."""
    first, *rest = prompt
    return [{**first, "content": f"{word}: {first['content']}"}, *rest]


def seeds(num_answers: int) -> Answered:
    """The first prompts with their ranked answers, so many answers in all."""
    found: Answered = []
    for ranked in read_ranked(SEEDS).prompts:
        texts = [response.text for response in ranked.responses][:num_answers]
        if texts:
            found.append((ranked.prompt.messages, texts))
        num_answers -= len(texts)
    return found


def agreement(scores: Scores, wanted: Scores) -> tuple[float, int]:
    """The share of pairs ordered alike, a tie as half, and the number of pairs."""
    alike = []
    for ours, theirs in zip(scores, wanted, strict=True):
        for i, j in combinations(range(len(ours)), 2):
            a, b, x, y = ours[i], ours[j], theirs[i], theirs[j]
            if a is None or b is None or x is None or y is None or x == y:
                continue
            alike.append(0.5 if a == b else float((a > b) == (x > y)))
    return (statistics.fmean(alike) if alike else float("nan")), len(alike)


async def compare(home: Home, options: argparse.Namespace) -> dict[str, Any]:
    three = RunConfig.model_validate(presets.load("demo")).judging
    expected = three.in_mode(JudgementMode.EXPECTED)
    answered = seeds(options.answers)
    async with running(home, port=None, tell=print) as stack:
        headers = {"authorization": f"Bearer {home.credentials().api_key}"}
        timeout, limit = aiohttp.ClientTimeout(total=None), aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(
            stack.addresses.generator, headers=headers, timeout=timeout, connector=limit
        ) as session:
            engine = Engine(session)
            for how in (three, expected):  # the first grammar, and the rubric into the cache
                await engine.judged(answered[:1], how, "Warm")
            rounds = [
                await _round(engine, answered, three, expected, n) for n in range(options.rounds)
            ]
            found = await _agreement(engine, seeds(options.agreement_answers), three, expected)
    return {
        "expected_cost_ratio": _median(rounds, lambda side: side.seconds),
        "expected_token_ratio": _median(rounds, lambda s: s.prompt_tokens + s.completion_tokens),
        **found,
        "answers": options.answers,
        "rounds": options.rounds,
    }


def _median(rounds: list[tuple[Judged, Judged]], of: Callable[[Judged], float]) -> float:
    return round(statistics.median(of(ours) / of(theirs) for ours, theirs in rounds), 3)


async def _round(
    engine: Engine, answered: Answered, three: Judging, expected: Judging, number: int
) -> tuple[Judged, Judged]:
    theirs = await engine.judged(answered, three, f"Task {number}A")
    ours = await engine.judged(answered, expected, f"Task {number}B")
    for name, side in (("3 constrained", theirs), ("expected", ours)):
        unscored = sum(score is None for each in side.scores for score in each)
        print(
            f"round {number + 1}: {name:13} {side.seconds:7.1f} s, {side.prompt_tokens:7d} tokens "
            f"read, {side.completion_tokens:6d} written, {unscored} answers without a score",
            flush=True,
        )
    return ours, theirs


async def _agreement(
    engine: Engine, answered: Answered, three: Judging, expected: Judging
) -> dict[str, Any]:
    many = three.model_copy(update={"num_judgements": NUM_MANY})  # more than a run may ask
    wanted = (await engine.judged(answered, many, "Task")).scores
    by_three = (await engine.judged(answered, three, "Task")).scores
    by_expectation = (await engine.judged(answered, expected, "Task")).scores
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
    parser.add_argument("--answers", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--agreement-answers", type=int, default=48)
    parser.add_argument("--home", type=Path, help="keep the stack's home here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rewardloop-bench-") as folder:
        home = Home(options.home or Path(folder) / "home")
        print(json.dumps(asyncio.run(compare(home, options))))


if __name__ == "__main__":
    main()
