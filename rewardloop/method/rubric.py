"""What a judge reads, and what is read from a judge. Pure text.

Two invariants keep a response from scoring itself: a score counts only where it names
the nonce of its call, which no response can know (see `nonce`); and a response can
neither close the tags that enclose it nor spell a control token. The texts of the
rubrics are in `rubrics`, the spellings of a score in `score_form`.
"""

import re
from collections.abc import Sequence

from rewardloop.config.rubrics import Rubric
from rewardloop.method.enclosure import material, split_response
from rewardloop.method.rubrics import rubric_text
from rewardloop.method.score_form import FORM, MAX_SCORE
from rewardloop.method.verdict import read, through_verdict
from rewardloop.records import JudgementMode, Message, UnscoredReason, Verdict

RUBRIC_VERSION = rubric_text("additive").version
"""That of the rubric that a judge is given unless asked otherwise."""

_MAX_WORDS = {
    JudgementMode.FREE: 100,
    JudgementMode.CONSTRAINED: 12,
    JudgementMode.EXPECTED: 100,  # asked as EFT teaches it
}


_ASKED_LINE = re.compile(r"^(?P<opening>[^\n<]{1,80})<\w{1,20}>\s*\Z", re.MULTILINE)
"""A rubric's last line, where it shows the form of the score: `Score: <total>`."""


def constrained_pattern(nonce: str | None) -> str:
    """Regular expression that the engine is held to in constrained mode: a short sentence,
    then the score. Its alphabet is kept small so that the grammar compiles at once."""
    return rf"[A-Z][A-Za-z ,']{{10,60}}\.\nScore{f' {nonce}' if nonce else ''}: [0-5]"


def opening(rubric: Rubric = "additive") -> str:
    """How the judge's answer begins where the score is asked for at once: the line that the
    rubric asks for, up to the score, without a nonce. (Where the score stands is ours to say
    then, so none has to be signed.)"""
    text = rubric_text(rubric)
    empty = {"request": "", "response": "", "max_words": "", "nonce": ""}
    asked = _ASKED_LINE.search(text.fill(empty))
    return asked["opening"] if asked else "Score: "


def render(
    conversation: Sequence[Message],
    mode: JudgementMode,
    rubric: Rubric = "additive",
    nonce: str | None = None,
) -> list[Message]:
    """The judge's prompt for a conversation whose last turn is the response to grade.

    With None for the nonce it asks for a score without one.

    Raises:
        ValueError: the conversation does not end in an assistant's turn after a user's.
    """
    request, response = split_response(conversation)
    texts = {
        "request": material(request),
        "response": response,
        "max_words": str(_MAX_WORDS[mode]),
        "nonce": nonce or "",
    }
    return [{"role": "user", "content": rubric_text(rubric).fill(texts)}]


def parse(completion: str, finish_reason: str | None = "stop", nonce: str | None = None) -> Verdict:
    """Read the score from what a judge wrote.

    It names the call's nonce (`Score 7f3a: 4`, `**Score 7f3a: 4/5**`). With None for the
    nonce, a score line stands alone on its line (`Score: 4`) or ends the last one, and what
    the judge quotes is not its score. A total takes the place of its parts. Lines that repeat
    the same number agree; different numbers conflict.
    """
    found = read(completion, finish_reason, FORM, nonce)
    score, reason = found
    if score is None:
        return Verdict(None, reason)
    if not 0 <= score <= MAX_SCORE:
        return Verdict(None, UnscoredReason.OUT_OF_RANGE)
    return Verdict(score, None)


def through_score(completion: str, nonce: str | None = None) -> str:
    """What a judge wrote up to its score; all of it where there is none.

    What it went on to write is no part of the judgement, and may be cut in the middle.
    """
    return through_verdict(completion, FORM, nonce)
