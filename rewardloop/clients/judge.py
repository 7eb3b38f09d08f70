"""Asks the judge service for judgements and comparisons."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from rewardloop.clients.completions import choices_of, share_out, text_of, usage_of
from rewardloop.clients.generator import RETRY_SECONDS
from rewardloop.clients.server import REQUEST_SECONDS, Server, asked_again
from rewardloop.config import Judging
from rewardloop.errors import InvalidInput, UpstreamMismatch, UpstreamRejected
from rewardloop.method.comparison import COMPARISON_VERSION
from rewardloop.method.rubrics import rubric_text
from rewardloop.records import (
    JudgementMode,
    Message,
    Preference,
    UnscoredReason,
    Verdict,
    WrittenComparison,
    WrittenJudgement,
)


class JudgeClient:
    def __init__(self, url: str, key: str) -> None:
        self._server = Server(url, key, ceiling_seconds=REQUEST_SECONDS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.aclose()

    async def judge(
        self,
        prompt: Sequence[Message],
        response: str,
        judging: Judging,
        count: int,
        *,
        key: str | None = None,
    ) -> list[WrittenJudgement]:
        """`count` judgements of one response.

        A request that the judge's engine refuses (it does not fit the context, say)
        settles as judgements without a score.

        Raises:
            UpstreamUnavailable: no answer, after retries.
            UpstreamMismatch: what answers is no judge, or its engine is not what it should be.
        """
        try:
            answer = await self._ask(
                prompt,
                response,
                key,
                n=count,
                temperature=judging.temperature,
                top_p=judging.top_p,
                max_tokens=judging.max_tokens,
                judgement_mode=judging.mode,
                **_rubric_field(judging),
            )
        except (UpstreamRejected, InvalidInput) as error:
            return [_refused(error.message, judging)] * count
        return _judgements(answer, count)

    async def compare(
        self,
        prompt: Sequence[Message],
        first: str,
        second: str,
        *,
        mode: JudgementMode,
        max_tokens: int,
        temperature: float = 0.0,
        key: str | None = None,
    ) -> WrittenComparison:
        """One comparison of two responses, in the order given.

        A request that the judge's engine refuses settles as one without a preference.

        Raises:
            UpstreamUnavailable, UpstreamMismatch: as for `judge`.
        """
        try:
            answer = await self._ask(
                prompt,
                first,
                key,
                compare_with=second,
                n=1,
                temperature=temperature,
                max_tokens=max_tokens,
                judgement_mode=mode,
            )
        except (UpstreamRejected, InvalidInput) as error:
            return WrittenComparison(
                error.message, None, UnscoredReason.REFUSED, COMPARISON_VERSION, "none"
            )
        (choice,) = choices_of(answer, 1, "the judge")
        return _comparison(choice)

    async def _ask(
        self, prompt: Sequence[Message], response: str, key: str | None, **fields: Any
    ) -> dict[str, Any]:
        answer_turn: Message = {"role": "assistant", "content": response}
        body = {"model": "judge", "messages": [*prompt, answer_turn], **fields}

        async def ask(anew: bool) -> dict[str, Any]:
            answer: dict[str, Any] = await self._server.post(
                "/v1/chat/completions", body, key=key, anew=anew
            )
            return answer

        return await asked_again(ask, RETRY_SECONDS)


def _rubric_field(judging: Judging) -> dict[str, Any]:
    """The judge service gives the additive rubric unless a request names another."""
    if judging.rubric == "additive":
        return {}
    return {"rubric": judging.model_dump(mode="json", include={"rubric"})["rubric"]}


def _refused(message: str, judging: Judging) -> WrittenJudgement:
    return WrittenJudgement(
        raw_text=message,
        verdict=Verdict(None, UnscoredReason.REFUSED),
        rubric_version=rubric_text(judging.rubric).version,
        judge_version="none",
        mode=judging.mode,
        prompt_tokens=0,
        completion_tokens=0,
    )


def _judgements(answer: dict[str, Any], count: int) -> list[WrittenJudgement]:
    choices = choices_of(answer, count, "the judge")
    texts = [text_of(choice) for choice in choices]
    prompt_tokens, completion_tokens = usage_of(answer)
    tokens = share_out(completion_tokens, [len(text) for text in texts])
    with _protocol("judgement"):
        return [
            WrittenJudgement(
                raw_text=text,
                verdict=_verdict(choice["judgement"]),
                rubric_version=choice["judgement"]["rubric_version"],
                judge_version=choice["judgement"]["judge_version"],
                mode=JudgementMode(choice["judgement"]["mode"]),
                prompt_tokens=prompt_tokens,
                completion_tokens=num_tokens,
            )
            for choice, text, num_tokens in zip(choices, texts, tokens, strict=True)
        ]


@contextmanager
def _protocol(wanted: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise UpstreamMismatch(
            f"what answers as the judge gives no {wanted} that can be read ({error!r}); "
            "REWARDLOOP_JUDGE_URL must name a judge service, not an engine"
        ) from error


def _verdict(judgement: dict[str, Any]) -> Verdict:
    if judgement["status"] == "scored":
        return Verdict(float(judgement["score"]), None)
    return Verdict(None, UnscoredReason(judgement["reason"]))


def _comparison(choice: dict[str, Any]) -> WrittenComparison:
    with _protocol("comparison"):
        found = choice["comparison"]
        decided = found["status"] == "decided"
        return WrittenComparison(
            raw_text=text_of(choice),
            preference=Preference(found["preference"]) if decided else None,
            reason=None if decided else UnscoredReason(found["reason"]),
            rubric_version=found["rubric_version"],
            judge_version=found["judge_version"],
        )
