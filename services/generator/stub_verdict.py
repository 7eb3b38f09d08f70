"""What the stub engine knows of a judge's prompt: the verdict that it asks for, and the nonce.

The nonce differs from call to call, so no answer of the stub depends on it: two runs over the
same texts end with the same scores.
"""

import re
from dataclasses import dataclass
from random import Random

_ASKED = r"(?P<name>Score|Better)(?P<nonce> [0-9a-f]{4})?: "
_PROMPT_END = re.compile(rf"{_ASKED}<(?:total|which)>\s*\Z")
_PATTERN_END = re.compile(rf"\\n{_ASKED}[\[(]")


@dataclass(frozen=True, slots=True)
class AskedVerdict:
    """How the last line of an answer shall begin."""

    name: str
    """`Score` or `Better`."""
    nonce: str
    """With a blank before it; empty where none was asked for."""

    def line(self, chance: Random, fixed_score: int | None) -> str:
        score = chance.randint(0, 5) if fixed_score is None else fixed_score
        preference = chance.choice(["first", "second", "tie"])
        return f"{self.name}{self.nonce}: {score if self.name == 'Score' else preference}"


def asked_by_prompt(prompt: str) -> AskedVerdict | None:
    return _verdict(_PROMPT_END.search(prompt))


def asked_by_pattern(pattern: str) -> AskedVerdict | None:
    return _verdict(_PATTERN_END.search(pattern))


def without_nonce(prompt: str) -> str:
    return _PROMPT_END.sub(lambda match: f"{match['name']}:", prompt)


def _verdict(match: re.Match[str] | None) -> AskedVerdict | None:
    return match and AskedVerdict(match["name"], match["nonce"] or "")
