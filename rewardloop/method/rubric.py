"""What a judge reads, and what is read from a judge. Pure text.

Two invariants keep a response from scoring itself: a score is only ever searched
in the judge's own words (see `own_words`), never in its prompt; and a response can
neither close the tags that enclose it nor spell a control token. The texts of the
rubrics are in `rubrics`, the spellings of a score in `score_form`.
"""

from collections.abc import Sequence

from rewardloop.config.rubrics import Rubric
from rewardloop.method.enclosure import material, split_response
from rewardloop.method.rubrics import rubric_text
from rewardloop.method.score_form import FORM, MAX_SCORE
from rewardloop.method.verdict import read, through_verdict
from rewardloop.records import JudgementMode, Message, UnscoredReason, Verdict

RUBRIC_VERSION = rubric_text("additive").version
"""That of the rubric that a judge is given unless asked otherwise."""

CONSTRAINED_PATTERN = r"[A-Z][A-Za-z ,']{10,60}\.\nScore: [0-5]"
"""Regular expression that the engine is held to in constrained mode: a short
sentence, then the score. Its alphabet is kept small so that the grammar
compiles at once."""

_MAX_WORDS = {JudgementMode.FREE: 100, JudgementMode.CONSTRAINED: 12}


def render(
    conversation: Sequence[Message], mode: JudgementMode, rubric: Rubric = "additive"
) -> list[Message]:
    """The judge's prompt for a conversation whose last turn is the response to grade.

    Raises:
        ValueError: the conversation does not end in an assistant's turn after a user's.
    """
    request, response = split_response(conversation)
    texts = {
        "request": material(request),
        "response": response,
        "max_words": str(_MAX_WORDS[mode]),
    }
    return [{"role": "user", "content": rubric_text(rubric).fill(texts)}]


def parse(completion: str, finish_reason: str | None = "stop") -> Verdict:
    """Read the score from what a judge wrote.

    A score line stands alone on its line (`Score: 4`, `**Score: 4/5**`) or ends the last
    one. What the judge quotes is not its score, and a total takes the place of its parts.
    Lines that repeat the same number agree; different numbers conflict.
    """
    found = read(completion, finish_reason, FORM)
    score, reason = found
    if score is None:
        return Verdict(None, reason)
    if not 0 <= score <= MAX_SCORE:
        return Verdict(None, UnscoredReason.OUT_OF_RANGE)
    return Verdict(score, None)


def through_score(completion: str) -> str:
    """What a judge wrote up to its score; all of it where there is none.

    What it went on to write is no part of the judgement, and may be cut in the middle.
    """
    return through_verdict(completion, FORM)
