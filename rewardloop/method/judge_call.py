"""One call to a judge: what its engine is asked, and what is read of what it writes. Pure.

The judge service makes calls of its requests; whoever has an engine at hand may make them
itself. Owns the call's nonce: the prompt asks for it beside the verdict, and only a verdict
that names it is read. By expectation nothing is written, so nothing is signed: the judge's
answer is begun up to its verdict, and the probabilities of the next token are read. Knows the
fields of OpenAI's chat completions, and no HTTP.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rewardloop.config.rubrics import Rubric
from rewardloop.method import comparison, expectation, rubric
from rewardloop.method.enclosure import split_response
from rewardloop.method.expectation import Distribution
from rewardloop.method.rubrics import RubricText, rubric_text
from rewardloop.records import JudgementMode, Message, Preference, UnscoredReason


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
    def is_expected(self) -> bool:
        return self.mode is JudgementMode.EXPECTED

    @property
    def _text(self) -> RubricText:
        return rubric_text(self.rubric)

    @property
    def _comparison_version(self) -> str:
        return comparison.AT_ONCE_VERSION if self.is_expected else comparison.COMPARISON_VERSION

    @property
    def _score_nonce(self) -> str | None:
        """None where the user's own rubric asks for no nonce, and where none is needed."""
        return self.nonce if self._text.takes_nonce and not self.is_expected else None

    @property
    def opening(self) -> str:
        """How the judge's answer begins, up to its verdict."""
        return rubric.opening(self.rubric) if self.compare_with is None else comparison.OPENING

    def body(self, model: str) -> dict[str, Any]:
        """What the engine is asked: the rendered rubric, and its form where that is forced.

        Raises:
            ValueError: the conversation does not end in a response to a user.
        """
        if self.is_expected:
            return {"model": model, **self._next_token()}
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

    def _next_token(self) -> dict[str, Any]:
        """The one token where the verdict stands. No grammar: under one, engines tell the
        probabilities that are left, and how many were for no verdict at all is not seen."""
        begun: Message = {"role": "assistant", "content": self.opening}
        return {
            "messages": [*self._rendered(), begun],
            "add_generation_prompt": False,
            "continue_final_message": True,
            "n": 1,
            "temperature": 0.0,
            "max_tokens": 1,
            "logprobs": True,
            "top_logprobs": expectation.TOP_LOGPROBS,
        }

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

    def expectation(
        self, choice: Mapping[str, Any], text: str, judge_version: str
    ) -> dict[str, dict[str, Any]]:
        """What a choice gains whose next token was asked for: its message, of which we wrote the
        beginning, and its judgement or comparison with the distribution.

        Raises:
            NoLogprobs: the choice has no log-probabilities.
        """
        message = {"message": {"role": "assistant", "content": self.opening + text}}
        if self.compare_with is None:
            found = expectation.points_of(choice)
            score = expectation.expected_score(found) if found.is_enough else None
            about = _distribution(found, expectation.POINTS)
            return message | {"judgement": self._told(score, _reason(found), judge_version) | about}
        found = expectation.preferences_of(choice)
        first = expectation.probability_of_first(found) if found.is_enough else None
        preference = None if first is None else expectation.preferred(first)
        sides = [str(side) for side in expectation.PREFERENCES.values()]
        about = {"probability": first, **_distribution(found, sides)}
        told = self._told_preference(preference, _reason(found), judge_version)
        return message | {"comparison": told | about}

    def _judgement(
        self, text: str, finish_reason: str | None, judge_version: str
    ) -> dict[str, Any]:
        verdict = rubric.parse(text, finish_reason, self._score_nonce)
        return self._told(verdict.score, verdict.reason, judge_version)

    def _told(
        self, score: float | None, reason: UnscoredReason | None, judge_version: str
    ) -> dict[str, Any]:
        return {
            "status": "unscored" if score is None else "scored",
            "score": score,
            "reason": reason,
            "mode": self.mode,
            "nonce": self._score_nonce,
            "rubric_version": self._text.version,
            "judge_version": judge_version,
        }

    def _comparison(
        self, text: str, finish_reason: str | None, judge_version: str
    ) -> dict[str, Any]:
        preference, reason = comparison.parse(text, finish_reason, self.nonce)
        return self._told_preference(preference, reason, judge_version)

    def _told_preference(
        self, preference: Preference | None, reason: UnscoredReason | None, judge_version: str
    ) -> dict[str, Any]:
        return {
            "status": "undecided" if preference is None else "decided",
            "preference": preference,
            "reason": reason,
            "mode": self.mode,
            "nonce": None if self.is_expected else self.nonce,
            "rubric_version": self._comparison_version,
            "judge_version": judge_version,
        }


def _reason(found: Distribution) -> UnscoredReason | None:
    return None if found.is_enough else UnscoredReason.IMPROBABLE


def _distribution(found: Distribution, verdicts: Sequence[str]) -> dict[str, Any]:
    by_verdict = dict(zip(verdicts, found.probabilities, strict=True))
    return {"distribution": by_verdict, "mass": found.mass}
