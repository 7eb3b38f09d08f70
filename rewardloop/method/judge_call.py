"""One call to a judge: what its engine is asked, and what is read of what it writes. Pure.

The judge service makes calls of its requests; whoever has an engine at hand may make them
itself. Owns the call's nonce: the prompt asks for it beside the verdict, and only a verdict
that names it is read. Knows the fields of OpenAI's chat completions, and no HTTP.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rewardloop.config.rubrics import Rubric
from rewardloop.method import comparison, rubric
from rewardloop.method.enclosure import split_response
from rewardloop.method.rubrics import RubricText, rubric_text
from rewardloop.records import JudgementMode, Message


@dataclass(frozen=True, slots=True)
class JudgeCall:
    """A response to be scored, or two to be compared."""

    conversation: Sequence[Message]
    """Ends in the response."""
    mode: JudgementMode
    nonce: str
    rubric: Rubric = "additive"
    """Of no matter to a comparison."""
    compare_with: str | None = None
    """A second response to the same request."""
    num_choices: int = 1
    temperature: float = 0.7
    top_p: float = 0.9
    max_tokens: int = 512

    @property
    def _text(self) -> RubricText:
        return rubric_text(self.rubric)

    @property
    def _score_nonce(self) -> str | None:
        """None where the user's own rubric asks for no nonce."""
        return self.nonce if self._text.takes_nonce else None

    def body(self, model: str) -> dict[str, Any]:
        """What the engine is asked: the rendered rubric, and its form where that is forced.

        Raises:
            ValueError: the conversation does not end in a response to a user.
        """
        body: dict[str, Any] = {
            "model": model,
            "messages": self._rendered(),
            "n": self.num_choices,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
        }
        if self.mode is JudgementMode.CONSTRAINED:
            body["structured_outputs"] = {"regex": self._pattern()}
        return body

    def _pattern(self) -> str:
        if self.compare_with is None:
            return rubric.constrained_pattern(self._score_nonce)
        return comparison.constrained_pattern(self.nonce)

    def _rendered(self) -> list[Message]:
        if self.compare_with is None:
            return rubric.render(self.conversation, self.mode, self.rubric, self._score_nonce)
        asked, first = split_response(self.conversation)
        return comparison.render(asked, first, self.compare_with, self.mode, self.nonce)

    def reading(
        self, text: str, finish_reason: str | None, judge_version: str
    ) -> dict[str, dict[str, Any]]:
        """What a choice gains: its judgement or its comparison."""
        if self.compare_with is None:
            return {"judgement": self._judgement(text, finish_reason, judge_version)}
        return {"comparison": self._comparison(text, finish_reason, judge_version)}

    def _judgement(
        self, text: str, finish_reason: str | None, judge_version: str
    ) -> dict[str, Any]:
        verdict = rubric.parse(text, finish_reason, self._score_nonce)
        return {
            "status": "unscored" if verdict.score is None else "scored",
            "score": verdict.score,
            "reason": verdict.reason,
            "mode": self.mode,
            "nonce": self._score_nonce,
            "rubric_version": self._text.version,
            "judge_version": judge_version,
        }

    def _comparison(
        self, text: str, finish_reason: str | None, judge_version: str
    ) -> dict[str, Any]:
        preference, reason = comparison.parse(text, finish_reason, self.nonce)
        return {
            "status": "undecided" if preference is None else "decided",
            "preference": preference,
            "reason": reason,
            "mode": self.mode,
            "nonce": self.nonce,
            "rubric_version": comparison.COMPARISON_VERSION,
            "judge_version": judge_version,
        }
