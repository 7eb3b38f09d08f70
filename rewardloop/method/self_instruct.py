"""New prompts from old ones: what the prompt model is shown, and what of its writing is kept.

Pure text (Yuan et al., section 3.1.2, after Self-Instruct, arXiv 2212.10560). Invariants: shots
are reproducible by their seed; the filter finds a too similar text whenever a comparison with
all of them would (docs/explanation/prompt-filters.md); no text, however odd, makes it raise or
linger. Knows neither the prompt model nor where prompts are stored.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from random import Random

from py3langid.langid import MODEL_FILE, LanguageIdentifier  # type: ignore[import-untyped]

from rewardloop.config import SelfInstruct
from rewardloop.method.similarity import UNSPACED, SimilarityIndex

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
_WORD = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")


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


class PromptFilter:
    """Takes texts one by one; each that is taken makes the next ones like it too similar."""

    def __init__(
        self, config: SelfInstruct, known: Iterable[str] = (), evaluation: Iterable[str] = ()
    ) -> None:
        self._config = config
        self._max_characters = _MAX_CHARACTERS_PER_WORD * config.max_words
        max_tokens = 2 * self._max_characters  # Case folding may part a letter in two.
        self._known = SimilarityIndex(config.max_similarity, max_tokens, known)
        self._evaluation = SimilarityIndex(config.max_evaluation_similarity, max_tokens, evaluation)
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
