"""Which of many texts is most like a new one, by ROUGE-L. Pure, and exact.

An index finds what comparing with every text would find, in a small part of the time: why it
loses nothing stands in docs/explanation/prompt-filters.md. Knows nothing of prompts.
"""

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from math import ceil

import numpy as np
from rapidfuzz.distance import LCSseq

_SIGNATURE_BITS = 128
_ROUNDING = 1e-9
"""Widens computed bounds: 0.56 * 25 / 2 is 7.000000000000001. The decision itself needs none: a
quotient of integers, as 14 / 25, is the same float as the number written 0.56."""

# Characters of scripts without blanks between words: Thai, Lao, Burmese, Khmer, kana, Han.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_TOKEN = re.compile(r"[a-z0-9]+")
_TOKEN_OF_ANY_SCRIPT = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+")


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


def _f1(a: Sequence[int], b: Sequence[int]) -> float:
    """ROUGE-L F1 of two texts, in [0, 1] (Lin, 2004), of m and n tokens:

        precision = LCS / m,  recall = LCS / n,  F1 = 2 LCS / (m + n)

    LCS is the length of the longest common subsequence; at least one of the two has a token.
    """
    return 2 * LCSseq.similarity(a, b) / (len(a) + len(b))


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


class SimilarityIndex:
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
