"""One request to the judge: what the engine is asked, and what is read of what it writes.

Owns the call's nonce: the prompt asks for it beside the verdict, and only a verdict that names
it is read. It follows from the request's key, so that whoever asks again is understood.
"""

from dataclasses import dataclass
from typing import Any, Self

from rewardloop import telemetry
from rewardloop.errors import InvalidInput
from rewardloop.method import comparison, rubric
from rewardloop.method.enclosure import split_response
from rewardloop.method.nonce import nonce_of
from rewardloop.method.rubrics import RubricText, rubric_text
from rewardloop.records import JudgementMode, Message
from services.judge.schemas import JudgeRequest


@dataclass(frozen=True, slots=True)
class JudgeCall:
    """A request and its nonce."""

    request: JudgeRequest
    nonce: str
    rubric: RubricText

    @classmethod
    def of(cls, request: JudgeRequest, key: str | None) -> Self:
        return cls(request, nonce_of(key), rubric_text(request.rubric))

    @property
    def _score_nonce(self) -> str | None:
        """None where the user's own rubric asks for no nonce."""
        return self.nonce if self.rubric.takes_nonce else None

    def body(self, model: str) -> dict[str, Any]:
        """What the engine is asked: the rendered rubric, and its form where that is forced.

        Raises:
            InvalidInput: the conversation does not end in a response to a user.
        """
        request = self.request
        body: dict[str, Any] = {
            "model": model,
            "messages": self._rendered(),
            "n": request.n,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "max_tokens": request.max_completion_tokens or request.max_tokens,
        }
        if request.judgement_mode is JudgementMode.CONSTRAINED:
            body["structured_outputs"] = {"regex": self._pattern()}
        if request.stream:
            body |= {"stream": True, "stream_options": request.stream_options.model_dump()}
        return body

    def _pattern(self) -> str:
        if self.request.compare_with is None:
            return rubric.constrained_pattern(self._score_nonce)
        return comparison.constrained_pattern(self.nonce)

    def _rendered(self) -> list[Message]:
        request, mode = self.request, self.request.judgement_mode
        conversation = [turn.as_message() for turn in request.messages]
        try:
            if request.compare_with is None:
                return rubric.render(conversation, mode, request.rubric, self._score_nonce)
            asked, first = split_response(conversation)
            return comparison.render(asked, first, request.compare_with, mode, self.nonce)
        except ValueError as error:
            raise InvalidInput(str(error)) from error

    def reading(
        self, text: str, finish_reason: str | None, judge_version: str
    ) -> dict[str, dict[str, Any]]:
        """What a choice gains: its judgement or its comparison."""
        if self.request.compare_with is None:
            return {"judgement": self._judgement(text, finish_reason, judge_version)}
        return {"comparison": self._comparison(text, finish_reason, judge_version)}

    def _judgement(
        self, text: str, finish_reason: str | None, judge_version: str
    ) -> dict[str, Any]:
        verdict = rubric.parse(text, finish_reason, self._score_nonce)
        telemetry.JUDGEMENTS.labels(verdict.reason or "scored").inc()
        return {
            "status": "unscored" if verdict.score is None else "scored",
            "score": verdict.score,
            "reason": verdict.reason,
            "mode": self.request.judgement_mode,
            "nonce": self._score_nonce,
            "rubric_version": self.rubric.version,
            "judge_version": judge_version,
        }

    def _comparison(
        self, text: str, finish_reason: str | None, judge_version: str
    ) -> dict[str, Any]:
        """No judgement, so not counted as one."""
        preference, reason = comparison.parse(text, finish_reason, self.nonce)
        return {
            "status": "undecided" if preference is None else "decided",
            "preference": preference,
            "reason": reason,
            "mode": self.request.judgement_mode,
            "nonce": self.nonce,
            "rubric_version": comparison.COMPARISON_VERSION,
            "judge_version": judge_version,
        }
