"""New prompts from old ones: what the prompt model is shown, and what of its writing is kept.

Pure text (Yuan et al., section 3.1.2, after Self-Instruct, arXiv 2212.10560). Invariants: shots
are reproducible by their seed; the filter finds a too similar text whenever a comparison with
all of them would (docs/explanation/prompt-filters.md); no text, however odd, makes it raise or
linger. Knows neither the prompt model nor where prompts are stored.
"""

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from itertools import chain
from math import ceil
from random import Random

import numpy as np
from py3langid.langid import MODEL_FILE, LanguageIdentifier  # type: ignore[import-untyped]
from rapidfuzz.distance import LCSseq

from rewardloop.config import SelfInstruct

STOP = ("\nTask", "\n\n")
"""Where a written task ends: shots are one line each, so a blank line ends one too."""

_HEADER = "Different tasks that people set an assistant. Each can be done by writing alone."
_LABEL = re.compile(r"\bTask \d+:")
_QUOTES = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u2018": "\u2019", "\u00ab": "\u00bb"}

_MAX_CHARACTERS_PER_WORD = 20
"""On average over a text: what has more is too long, however few blanks it has."""
_SURELY = 100
"""Times as likely as the wanted language another one must be. Measured: English prompts cut to
their first 3 to 8 words reach 17, sentences in 15 other languages start at 780."""
_SIGNATURE_BITS = 128
_ROUNDING = 1e-9
"""Widens computed bounds: 0.56 * 25 / 2 is 7.000000000000001. The decision itself needs none: a
quotient of integers, as 14 / 25, is the same float as the number written 0.56."""

# Characters of scripts without blanks between words: Thai, Lao, Burmese, Khmer, kana, Han.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_TOKEN = re.compile(r"[a-z0-9]+")
_TOKEN_OF_ANY_SCRIPT = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


def few_shot_prompt(shots: Sequence[str]) -> str:
    """What a completion model continues with one more task."""
    tasks = [f"Task {number}: {' '.join(shot.split())}" for number, shot in enumerate(shots, 1)]
    return "\n".join([_HEADER, "", *tasks, f"Task {len(shots) + 1}:"])


def choose_shots(
    human: Sequence[str], generated: Sequence[str], config: SelfInstruct, seed: int
) -> list[str]:
    """Distinct shots in mixed order; human ones stand in for generated ones not written yet.

    Raises:
        ValueError: there is no human prompt.
    """
    ours = list(dict.fromkeys(human))
    if not ours:
        raise ValueError("there is no human prompt to take shots from")
    shown = set(ours)
    written = [text for text in dict.fromkeys(generated) if text not in shown]
    num_written = min(config.num_generated_shots, len(written))
    num_ours = config.num_human_shots + config.num_generated_shots - num_written
    random = Random(seed)
    shots = random.sample(ours, min(num_ours, len(ours))) + random.sample(written, num_written)
    random.shuffle(shots)
    return shots


def written_prompt(completion: str) -> str:
    """The one prompt in what the model wrote, perhaps "".

    A label before it, what follows at the next one, quotes around the whole, blank lines and
    NULs (Postgres stores none) are left out.
    """
    text = completion.replace("\x00", "").strip()
    if label := _LABEL.match(text):
        text = text[label.end() :]
    text = _unquoted(_LABEL.split(text, maxsplit=1)[0].strip())
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


def _unquoted(text: str) -> str:
    """Without the quotes around the whole; `"Yes" or "no"` keeps its own."""
    closing = _QUOTES.get(text[:1])
    inner = text[1:-1]
    if closing is None or not text.endswith(closing) or text[0] in inner or closing in inner:
        return text
    return inner.strip()


class Rejection(StrEnum):
    """Why a text is no new prompt, in the order in which it is looked at."""

    TRUNCATED = "truncated"
    """Cut off at `max_tokens`. The engine says so, not the filter."""
    TOO_LONG = "too_long"
    """More than `max_words` words, or 20 times as many characters."""
    EMPTY = "empty"
    """No letter and no digit."""
    TOO_SHORT = "too_short"
    """Fewer than `min_words` words."""
    KEYWORD = "keyword"
    """A word of tasks that a text model cannot do."""
    NEAR_EVALUATION = "near_evaluation"
    """Similar to an evaluation prompt, by `max_evaluation_similarity`."""
    DUPLICATE = "duplicate"
    """The same words in the same order as a known text."""
    SIMILAR = "similar"
    """Similar to a known text, by `max_similarity`."""
    LANGUAGE = "language"
    """Surely in another language than `language`."""


@dataclass(frozen=True, slots=True)
class Rejected:
    reason: Rejection
    detail: str
    """The count, keyword or language that was found, or the most similar text and its score."""


def tokens(text: str) -> list[str]:
    """What ROUGE-L compares: runs of a-z and 0-9 in lower case, as the rouge-score package.

    Those are blind to other scripts. A text whose letters and digits are mostly not ASCII is
    compared by its words in any script, and by its letters where no blanks part words.
    """
    if not text.isascii():
        letters = [letter.isascii() for letter in text if letter.isalnum()]
        if 2 * sum(letters) < len(letters):
            return _TOKEN_OF_ANY_SCRIPT.findall(text.casefold())
    return _TOKEN.findall(text.lower())


def rouge_l(a: str, b: str) -> float:
    """ROUGE-L F1 of two texts, in [0, 1] (Lin, 2004), of m and n tokens.

        precision = LCS / m,  recall = LCS / n,  F1 = 2 LCS / (m + n)

    LCS is the length of the longest common subsequence. 0 where neither has a token.
    """
    numbers: dict[str, int] = {}
    first, second = ([numbers.setdefault(t, len(numbers)) for t in tokens(x)] for x in (a, b))
    return _f1(first, second) if first or second else 0.0


def _f1(a: Sequence[int], b: Sequence[int]) -> float:
    return 2 * LCSseq.similarity(a, b) / (len(a) + len(b))


@cache
def _identifier() -> LanguageIdentifier:
    """Takes most of a second and 100 MB, so only once a language is asked for."""
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def other_language(text: str, wanted: str) -> str | None:
    """The language that `text` is surely in instead of `wanted` (ISO 639-1).

    The identifier is often wrong about a few words ("List 3 fruits" is Dutch to it), but then
    finds many languages about as likely. So another one must be `_SURELY` times as likely.
    """
    likeliest, likelihood = _identifier().classify(text)
    if likeliest == wanted or likelihood < _SURELY * dict(_identifier().rank(text))[wanted]:
        return None
    return str(likeliest)


@dataclass(frozen=True, slots=True)
class _Numbered:
    """A text as an index sees it."""

    sequence: tuple[int, ...]
    """Its tokens' numbers in their order: what LCS compares."""
    rarest_first: list[int]
    """The same numbers, downwards."""
    signature: bytes
    """`_SIGNATURE_BITS` bits; each token flips the one that its number falls on."""
    new: dict[str, int]
    """Numbers of the tokens that no indexed text has; higher than all others."""


class _Index:
    """Which indexed text is most like a new one, if any reaches the threshold t. Exact.

    Texts x and y of m and n tokens are also multisets, and what is in order a common subsequence
    is without it common tokens. So, with c(s) = max(1, ceil(t s / 2)),

        F1(x, y) >= t  implies  |x & y| >= c(m + n),

    and three tests pass over texts for which that is impossible:

    - length: min(m, n) >= c(m + n), that is t / (2 - t) <= n / m <= (2 - t) / t;
    - prefix: sort both by any one order. If they have c tokens in common, the first of these is
      among the first m - c + 1 of x and n - c + 1 of y. Only such prefixes are in the postings;
    - signature: a token of one text alone flips at most one bit of the two signatures' xor,
      which so has at most m + n - 2 c(m + n) <= (1 - t)(m + n) bits.

    What is left is decided by LCS. The order is by number, rare tokens best being in front;
    a number is given once, at first sight, so that texts indexed at any time agree on it.
    Texts at hand at first are counted; what is seen later is taken to be rarer.
    """

    def __init__(self, threshold: float, max_tokens: int, texts: Iterable[str]) -> None:
        """`max_tokens` bounds the texts that will be asked about."""
        self._threshold = threshold
        self._max_length = self._longest(max_tokens)
        """Longer texts cannot be similar to any asked about and are not indexed."""
        self._sequences: list[tuple[int, ...]] = []
        self._beginnings: list[str] = []
        self._lengths = array("I")
        self._signatures = array("Q")
        self._postings: dict[int, dict[int, array[int]]] = {}
        """By length, then by token: the texts of that length with it in their prefix."""
        texts = list(texts)
        counts = Counter(chain.from_iterable(map(self._indexable, texts)))
        self._numbers = {token: number for number, (token, _) in enumerate(counts.most_common())}
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        if not (words := self._indexable(text)):
            return
        length, numbered = len(words), self._number(words)
        self._numbers.update(numbered.new)
        postings = self._postings.setdefault(length, {})
        prefix = length - self._common(length + self._shortest(length)) + 1
        for number in set(numbered.rarest_first[:prefix]):
            postings.setdefault(number, array("I")).append(len(self._sequences))
        self._sequences.append(numbered.sequence)
        self._beginnings.append(text[:200])
        self._lengths.append(length)
        self._signatures.frombytes(numbered.signature)

    def _indexable(self, text: str) -> list[str]:
        words = tokens(text)
        return words if len(words) <= self._max_length else []

    def nearest(self, text: str) -> tuple[float, str] | None:
        """F1 and the beginning of the most similar text, of equals the first."""
        numbered = self._number(tokens(text))
        best: tuple[float, int] | None = None
        for i in self._candidates(numbered):
            f1 = _f1(numbered.sequence, self._sequences[i])
            if f1 >= self._threshold and (best is None or f1 > best[0]):
                best = f1, i
        return best and (best[0], self._beginnings[best[1]])

    def _candidates(self, text: _Numbered) -> list[int]:
        """In the order of indexing; what passes all three tests."""
        if not (posted := self._posted(text)):
            return []
        found = np.frombuffer(posted, np.uint32)
        shape = (-1, _SIGNATURE_BITS // 64)
        signatures = np.frombuffer(self._signatures, np.uint64).reshape(shape)[found]
        lengths = np.frombuffer(self._lengths, np.uint32)[found]
        different = np.bitwise_count(signatures ^ np.frombuffer(text.signature, np.uint64))
        most = (1 - self._threshold) * (lengths + len(text.sequence)) + _ROUNDING
        passed: list[int] = np.unique(found[different.sum(axis=1) <= most]).tolist()
        return passed

    def _posted(self, text: _Numbered) -> "array[int]":
        """Texts of fitting length with a token of the prefix in theirs; some repeatedly."""
        length = len(text.sequence)
        shortest, longest = self._shortest(length), self._longest(length)
        posted = array("I")
        for other, postings in self._postings.items():
            if not shortest <= other <= longest:
                continue
            prefix = length - self._common(length + other) + 1
            for number in text.rarest_first[len(text.new) : prefix]:
                if (found := postings.get(number)) is not None:
                    posted.extend(found)
        return posted

    def _shortest(self, length: int) -> int:
        return max(1, ceil(length * self._threshold / (2 - self._threshold) - _ROUNDING))

    def _longest(self, length: int) -> float:
        return length * (2 - self._threshold) / self._threshold + _ROUNDING

    def _common(self, total: int) -> int:
        """c(s): tokens that similar texts of `total` tokens together have in common."""
        return max(1, ceil(self._threshold * total / 2 - _ROUNDING))

    def _number(self, words: list[str]) -> _Numbered:
        known, new, sequence = self._numbers, dict[str, int](), []
        for word in words:
            if (number := known.get(word)) is None:
                number = new.setdefault(word, len(known) + len(new))
            sequence.append(number)
        signature = 0
        for number in sequence:
            signature ^= 1 << number % _SIGNATURE_BITS
        return _Numbered(
            sequence=tuple(sequence),
            rarest_first=sorted(sequence, reverse=True),
            signature=signature.to_bytes(_SIGNATURE_BITS // 8, "little"),
            new=new,
        )


class PromptFilter:
    """Takes texts one by one; each that is taken makes the next ones like it too similar."""

    def __init__(
        self, config: SelfInstruct, known: Iterable[str] = (), evaluation: Iterable[str] = ()
    ) -> None:
        self._config = config
        self._max_characters = _MAX_CHARACTERS_PER_WORD * config.max_words
        max_tokens = 2 * self._max_characters  # Case folding may part a letter in two.
        self._known = _Index(config.max_similarity, max_tokens, known)
        self._evaluation = _Index(config.max_evaluation_similarity, max_tokens, evaluation)
        keywords = "|".join(map(re.escape, config.keywords))
        self._keyword = re.compile(rf"(?<!\w)(?:{keywords})(?!\w)", re.IGNORECASE)

    def admit(self, text: str) -> Rejected | None:
        """Index the text as known if nothing speaks against it."""
        rejected = self.check(text)
        if rejected is None:
            self.add(text)
        return rejected

    def add(self, text: str) -> None:
        """Index the text as known, whatever `check` says of it."""
        self._known.add(text)

    def check(self, text: str) -> Rejected | None:
        """What speaks against the text; cheap questions first. Changes nothing."""
        text = text.strip()
        cheap = self._bad_length(text) or self._keyword_in(text)
        return cheap or self._copy_of(text) or self._foreign(text)

    def _bad_length(self, text: str) -> Rejected | None:
        config = self._config
        if len(text) > self._max_characters:
            return Rejected(Rejection.TOO_LONG, f"{len(text)} characters")
        if not any(map(str.isalnum, text)):
            return Rejected(Rejection.EMPTY, f"{len(text)} characters, no letter or digit")
        num_words = len(_WORD.findall(text))
        if num_words > config.max_words:
            return Rejected(Rejection.TOO_LONG, f"{num_words} words")
        if num_words < config.min_words:
            return Rejected(Rejection.TOO_SHORT, f"{num_words} words")
        return None

    def _keyword_in(self, text: str) -> Rejected | None:
        found = self._keyword.search(text) if self._config.keywords else None
        return Rejected(Rejection.KEYWORD, found[0].lower()) if found else None

    def _copy_of(self, text: str) -> Rejected | None:
        if (found := self._evaluation.nearest(text)) is not None:
            return Rejected(Rejection.NEAR_EVALUATION, _likeness(*found))
        if (found := self._known.nearest(text)) is not None:
            reason = Rejection.DUPLICATE if found[0] == 1 else Rejection.SIMILAR
            return Rejected(reason, _likeness(*found))
        return None

    def _foreign(self, text: str) -> Rejected | None:
        wanted = self._config.language
        found = None if wanted is None else other_language(text, wanted)
        return Rejected(Rejection.LANGUAGE, found) if found else None


def _likeness(f1: float, beginning: str) -> str:
    line = " ".join(beginning.split())
    return f"{f1:.2f} to {line if len(line) <= 80 else line[:77] + '...'!r}"
