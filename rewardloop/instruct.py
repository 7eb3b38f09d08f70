"""New prompts from old ones: what the prompt model is shown, and what of its writing is kept.

Pure text (Yuan et al., section 3.1.2, after Self-Instruct, arXiv 2212.10560). Invariants: shots
are reproducible by their seed; the filter finds every known text that is too similar, exactly as
a comparison with all of them would, only sooner (docs/explanation/prompt-filters.md); no text,
however odd, makes it raise or linger. Knows neither the model nor where prompts are stored.

Similarity is ROUGE-L F1 over tokens, as the rouge-score package computes it without stemming:

    F1(a, b) = 2 LCS(a, b) / (|a| + |b|), in [0, 1]; 0 where either has no token

with LCS the length of the longest common subsequence.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from itertools import chain
from math import ceil, floor
from random import Random

from rapidfuzz.distance import LCSseq

from rewardloop.config import SelfInstruct
from rewardloop.errors import InvalidInput

STOP = ("\nTask", "\n\n")
"""Where one written task ends: shots are one line each, so a blank line ends a task too."""

_HEADER = (
    "The following tasks were set by different people for an assistant that reads and writes "
    "text. No two are alike, and each can be done without asking back."
)

_NEXT_TASK = re.compile(r"\bTask \d+:")
_QUOTES = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u2018": "\u2019", "\u00ab": "\u00bb"}


def few_shot_prompt(shots: Sequence[str]) -> str:
    """What a completion model continues with one more task; a shot is put on one line."""
    tasks = [f"Task {i}: {' '.join(shot.split())}" for i, shot in enumerate(shots, start=1)]
    return "\n".join([_HEADER, "", *tasks, f"Task {len(shots) + 1}:"])


def choose_shots(
    human: Sequence[str], generated: Sequence[str], config: SelfInstruct, seed: int
) -> list[str]:
    """Distinct shots in mixed order. Human ones stand in for generated ones there are not yet.

    Raises:
        ValueError: there is no human prompt.
    """
    ours = list(dict.fromkeys(human))
    if not ours:
        raise ValueError("there is no human prompt to show as a shot")
    written = list(dict.fromkeys(generated).keys() - set(ours))
    written = [text for text in dict.fromkeys(generated) if text not in set(ours)]
    num_written = min(config.num_generated_shots, len(written))
    num_ours = config.num_human_shots + config.num_generated_shots - num_written
    random = Random(seed)
    shots = random.sample(ours, min(num_ours, len(ours))) + random.sample(written, num_written)
    random.shuffle(shots)
    return shots


def written_prompt(completion: str) -> str:
    """The prompt in what the model wrote, perhaps "".

    NULs, which cannot be stored, are dropped, and a label that repeats ours.
    """
    text = completion.replace("\x00", "").strip()
    if label := _NEXT_TASK.match(text):
        text = text[label.end() :]
    text = _unquoted(_NEXT_TASK.split(text, maxsplit=1)[0].strip())
    return "\n".join(line for line in text.splitlines() if line.strip())


def _unquoted(text: str) -> str:
    """Without the quotes around the whole; `"Yes" or "no"` keeps its own."""
    closing = _QUOTES.get(text[:1])
    if closing is None or len(text) < 2 or not text.endswith(closing):
        return text
    inner = text[1:-1]
    return text if text[0] in inner or closing in inner else inner.strip()


class Rejection(StrEnum):
    """Why a text is no new prompt, in the order in which it is looked at."""

    EMPTY = "empty"
    """It holds no letter and no digit."""
    TOO_LONG = "too_long"
    """It has more than `max_words` words, or 20 times as many characters."""
    TOO_SHORT = "too_short"
    """It has fewer than `min_words` words."""
    KEYWORD = "keyword"
    """It has a word of tasks that a text model cannot do."""
    DUPLICATE = "duplicate"
    """A known text has the same words in the same order."""
    NEAR_EVALUATION = "near_evaluation"
    """It is as similar as `max_evaluation_similarity`, or more, to an evaluation prompt."""
    SIMILAR = "similar"
    """It is as similar as `max_similarity`, or more, to a known text."""
    LANGUAGE = "language"
    """It is surely in another language than `language`."""


@dataclass(frozen=True, slots=True)
class Rejected:
    reason: Rejection
    detail: str
    """The keyword, the language found, or the most similar text and its score; else a count."""


# Letters of scripts without spaces between words: kana, Han, Thai, Lao, Burmese, Khmer.
_UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_UNSPACED += r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_TOKEN = re.compile(r"[a-z0-9]+")
_TOKEN_OF_ANY_SCRIPT = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


def tokens(text: str) -> list[str]:
    """What ROUGE-L compares: runs of a-z and 0-9 in lower case, as rouge-score has them.

    It sees nothing of other scripts. Where most letters and digits of a text are not
    ASCII, its tokens are words of any script, and single letters of scripts without spaces.
    """
    if not text.isascii():
        letters = [letter.isascii() for letter in text if letter.isalnum()]
        if 2 * sum(letters) < len(letters):
            return _TOKEN_OF_ANY_SCRIPT.findall(text.casefold())
    return _TOKEN.findall(text.lower())


def rouge_l(a: Sequence[str], b: Sequence[str]) -> float:
    """ROUGE-L F1 of two token lists."""
    numbers: dict[str, int] = {}
    first, second = ([numbers.setdefault(t, len(numbers)) for t in ts] for ts in (a, b))
    return 2 * LCSseq.similarity(first, second) / (len(a) + len(b)) if a and b else 0.0


def other_language(text: str, wanted: str) -> str | None: ...
