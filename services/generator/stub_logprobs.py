"""The stub engine's log-probabilities: of a prompt's tokens, and of the next one.

Canaries ask for the first. A judge by expectation asks for the second: the answer that it begins
ends where the verdict stands. What is probable there follows from the prompt without its nonce
and from the weights, like what the stub writes.
"""

import json
from dataclasses import dataclass
from math import log
from pathlib import Path
from random import Random
from typing import Any

from rewardloop import checkpoints
from services.generator.chat_request import begins_answer
from services.generator.stub_faults import Faults
from services.generator.stub_verdict import asked_by_prompt, without_nonce

OTHER = "\n"
"""A token that spells no verdict."""
MASS = 0.95
"""On all verdicts together, of a judgement that has one."""
MASS_OF_NONE = 0.01
WORDS = {"Score": ("0", "1", "2", "3", "4", "5"), "Better": ("1", "2")}


@dataclass(frozen=True)
class NextToken:
    """Tokens with their probabilities, which sum to 1; the first is the most probable one."""

    probabilities: dict[str, float]

    @property
    def text(self) -> str:
        return next(iter(self.probabilities))

    def logprobs(self) -> dict[str, Any]:
        """In the form of OpenAI's chat completions."""
        told = [_entry(token, p) for token, p in self.probabilities.items()]
        return {"content": [{**told[0], "top_logprobs": told}]}


def next_token(body: dict[str, Any], prompt: str, version: str, faults: Faults) -> NextToken | None:
    """What is probable where the verdict stands; None where `body` does not ask for that."""
    asked = asked_by_prompt(prompt)
    wanted = body.get("logprobs") and body.get("max_tokens") == 1 and begins_answer(body)
    if asked is None or not wanted or faults.tells_no_logprobs:
        return None
    chance = Random(f"{version}\0{without_nonce(prompt)}\0next")
    is_scored = chance.random() >= faults.unscored_rate
    words = WORDS[asked.name]
    weights = [chance.random() + 1e-3 for _ in words]
    if faults.fixed_score is not None and asked.name == "Score":
        weights = [float(number == faults.fixed_score) for number in range(len(words))]
    mass = MASS if is_scored else MASS_OF_NONE
    found = {w: mass * x / sum(weights) for w, x in zip(words, weights, strict=True) if x}
    found[OTHER] = 1 - mass
    return NextToken(dict(sorted(found.items(), key=lambda item: -item[1])))


def _entry(token: str, probability: float) -> dict[str, Any]:
    return {"token": token, "logprob": log(probability), "bytes": list(token.encode())}


def prompt_logprobs(
    tokens: list[int], folder: Path, error: float
) -> list[dict[str, dict[str, float]] | None]:
    """Log-probability of each token given those before it; the first has none.

    The checkpoint's canaries are repeated, off by `error`; other texts get what a hash says.
    """
    logprobs = [-20 * Random(f"{tokens[: i + 1]}").random() for i in range(len(tokens))]
    for canary in json.loads((folder / checkpoints.CANARIES).read_text())["canaries"]:
        prompt_ids = canary["prompt_token_ids"]
        if tokens == prompt_ids + canary["continuation_token_ids"]:
            logprobs[len(prompt_ids) :] = canary["logprobs"]
    known = zip(tokens[1:], logprobs[1:], strict=True)
    return [None, *({str(token): {"logprob": found - error}} for token, found in known)]
