"""The prompt filter on more and more prompts, and against comparing with all of them.

    python -m benchmarks.filter [--largest 100000] [--seed 0]

Makes distinct prompts: templates, filled with words as often as the seed prompts and answers
have them (their counts are Zipf-like) and now and then a name or number, which never runs out;
every tenth is an earlier one with a word changed. A fresh `PromptFilter` with all its checks
admits a tenth of them, then about a third, then all, one by one. The seed prompts are its
evaluation prompts. Planted copies must be found: "missed" counts those that were kept beside
their original. Seconds are of one core's time, so that neighbours on the machine do not count.

The other side, at the smallest size and for a sample: each prompt against every one that was
kept before it, by rapidfuzz's `extractOne` with normalised Indel similarity, which is ROUGE-L
F1, in one call without Python in between: the best brute force we can write. Sampled are
prompts that similarity decides about, and both sides must find the same nearest F1.
"""

import argparse
import json
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from math import log
from pathlib import Path
from random import Random

from rapidfuzz import process
from rapidfuzz.distance import Indel

from rewardloop.config import SelfInstruct
from rewardloop.method.self_instruct import PromptFilter, Rejected, Rejection
from rewardloop.method.similarity import tokens

SEEDS = Path(__file__).parents[1] / "rewardloop" / "seeds" / "prompts.jsonl"
SHARE_OF_COPIES = 0.1
NUM_SAMPLED = 200
DECIDED_BY_SIMILARITY = (None, Rejection.SIMILAR, Rejection.DUPLICATE, Rejection.LANGUAGE)

TEMPLATES = (
    "Explain how {words} affects {word}, in terms that {name} would understand: {tail}.",
    "Write a short story about {words} and {word}. It should mention {tail}.",
    "What is the difference between {words} and {words}? I only know that {tail}.",
    "Give me {number} ideas for {words}. Keep in mind that {tail}.",
    "List {number} ways to improve {words} without {tail}.",
    "Summarise this for {name}: {tail}.",
    "Write a Python function that takes {words} and returns {words}; {tail}.",
    "Suggest a title for an article on {words}, given that {tail}.",
    "Why does {words} matter so much to {name}? Think of {tail}.",
    "Compare {words} with {words} in one paragraph, and say {tail}.",
    "Draft an email to {name} about {words}. Tell them {tail}.",
    "My friend {name} says that {tail}. Is that right?",
    "How would you plan {number} days of {words} if {tail}?",
    "Rewrite this sentence so that it is easier to read: {tail}.",
    "If {number} people share {words} and {name} takes {number}, what is left? Note that {tail}.",
    "I am learning about {words}. Ask me {number} questions on {tail}.",
)
SYLLABLES = re.findall(r"\w+", "ba dan el fi gor hal is jo kan ke lo lum mar mi nor pel ru sa vor")


@dataclass(frozen=True, slots=True)
class Made:
    text: str
    original: int | None
    """Of a copy, the number of the prompt that it copies."""


@dataclass(frozen=True, slots=True)
class Filtered:
    """What a filter made of the prompts, in their order."""

    outcomes: list[Rejected | None]
    seconds: float

    def reason(self, number: int) -> Rejection | None:
        outcome = self.outcomes[number]
        return None if outcome is None else outcome.reason


class Writer:
    """Makes prompts; the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        rows = [json.loads(line) for line in SEEDS.read_text().splitlines()]
        self.seed_prompts = [str(row["prompt"]) for row in rows]
        texts = " ".join(row["prompt"] + " " + row["response"] for row in rows)
        counts = Counter(re.findall(r"[a-z]{2,}", texts.lower()))
        self._words = list(counts)
        self._cumulative = list(accumulate(counts.values()))

    def prompts(self, num: int) -> list[Made]:
        made: dict[str, Made] = {}
        texts: list[str] = []
        while len(texts) < num:
            copies = texts and self._random.random() < SHARE_OF_COPIES
            one = self._copy(texts) if copies else Made(self._new(), None)
            if one.text not in made:
                made[one.text] = one
                texts.append(one.text)
        return list(made.values())

    def _new(self) -> str:
        template = self._random.choice(TEMPLATES)
        fillers: dict[str, Callable[[], str]] = {
            "word": self._word,
            "words": lambda: self._several(1, 3),
            "tail": lambda: self._several(5, 24),
            "name": self._name,
            "number": lambda: str(self._random.randint(2, 20)),
        }
        return re.sub(r"\{(\w+)\}", lambda slot: fillers[slot[1]](), template)

    def _copy(self, texts: list[str]) -> Made:
        original = self._random.randrange(len(texts))
        words = texts[original].split()
        words[self._random.randrange(len(words))] = self._word()
        return Made(" ".join(words), original)

    def _several(self, least: int, most: int) -> str:
        return " ".join(self._word() for _ in range(self._random.randint(least, most)))

    def _word(self) -> str:
        kind = self._random.random()
        if kind < 0.05:
            return self._name()
        if kind < 0.07:
            return str(self._random.randrange(10_000))
        word: str = self._random.choices(self._words, cum_weights=self._cumulative)[0]
        return word

    def _name(self) -> str:
        return "".join(self._random.choices(SYLLABLES, k=self._random.randint(2, 4))).capitalize()


def admit_all(prompts: list[Made], evaluation: list[str]) -> Filtered:
    prompt_filter = PromptFilter(SelfInstruct(), evaluation=evaluation)
    started = time.process_time()
    outcomes = [prompt_filter.admit(prompt.text) for prompt in prompts]
    return Filtered(outcomes, time.process_time() - started)


def num_missed(prompts: list[Made], filtered: Filtered) -> int:
    """Copies that were kept although their original was."""
    kept = [outcome is None for outcome in filtered.outcomes]
    copies = ((number, made.original) for number, made in enumerate(prompts))
    return sum(kept[n] and original is not None and kept[original] for n, original in copies)


def by_brute_force(prompts: list[Made], filtered: Filtered, seed: int) -> tuple[float, int, int]:
    """Seconds per prompt of the sample, in how many both sides agree, and of how many."""
    numbers: dict[str, int] = {}
    coded = [
        "".join(chr(numbers.setdefault(token, len(numbers))) for token in tokens(p.text))
        for p in prompts
    ]
    eligible = [n for n in range(len(prompts)) if filtered.reason(n) in DECIDED_BY_SIMILARITY]
    sample = Random(seed).sample(eligible, min(NUM_SAMPLED, len(eligible)))
    seconds, agreeing = 0.0, 0
    for number in sample:
        kept = [coded[n] for n in range(number) if filtered.reason(n) is None]
        started = time.process_time()
        found = process.extractOne(
            coded[number],
            kept,
            scorer=Indel.normalized_similarity,
            score_cutoff=SelfInstruct().max_similarity - 1e-9,
        )
        seconds += time.process_time() - started
        ours = filtered.outcomes[number]
        similar = ours is not None and ours.reason is not Rejection.LANGUAGE
        theirs = None if found is None else f"{found[1]:.2f}"
        agreeing += theirs == (ours.detail.split()[0] if ours and similar else None)
    return seconds / len(sample), agreeing, len(sample)


def compare(largest: int, seed: int) -> dict[str, float]:
    sizes = [round(largest / 10), round(largest / 10**0.5), largest]
    writer = Writer(seed)
    prompts = writer.prompts(largest)
    PromptFilter(SelfInstruct()).check("Name three fruits that are red.")  # Loads the identifier.
    reasons = [reason.value for reason in Rejection]
    print(" ".join(f"{name:>9}" for name in ("N", "seconds", "us each", "kept", "missed")), end="")
    print("".join(f" {reason.removesuffix('_evaluation'):>9}" for reason in reasons))
    seconds = []
    for size in sizes:
        filtered = admit_all(prompts[:size], writer.seed_prompts)
        seconds.append(filtered.seconds)
        _print_row(prompts[:size], filtered)
        if size == sizes[0]:
            first = filtered
    per_prompt, agreeing, num_sampled = by_brute_force(prompts[: sizes[0]], first, seed)
    print(
        f"brute force at N = {sizes[0]}: {per_prompt * 1e6:.0f} us each for similarity alone; "
        f"{agreeing} of {num_sampled} decisions the same"
    )
    slope = statistics.linear_regression([log(n) for n in sizes], [log(s) for s in seconds]).slope
    return {
        f"seconds_{largest // 1000}k": round(seconds[-1], 1),
        "growth_exponent": round(slope, 3),
    }


def _print_row(prompts: list[Made], filtered: Filtered) -> None:
    found = Counter(filtered.reason(number) for number in range(len(prompts)))
    each = filtered.seconds / len(prompts) * 1e6
    print(f"{len(prompts):>9} {filtered.seconds:>9.1f} {each:>9.0f} {found[None]:>9}", end="")
    print(f" {num_missed(prompts, filtered):>9}", end="")
    print("".join(f" {found[reason]:>9}" for reason in Rejection), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--largest", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(json.dumps(compare(options.largest, options.seed)))


if __name__ == "__main__":
    main()
