"""Asks the judge service for judgements and comparisons, or its engine itself.

Where the service says that its engine stands at an address at which its caller samples
(`ENGINE` of its model), the caller may ask without the service between: the rubric is rendered
and the judgement read by the same code. Both must name the address, so that nobody judges with
another engine because one of the two was set up otherwise.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self

from rewardloop.clients.completions import choices_of, share_out, text_of, usage_of
from rewardloop.clients.generator import POLICY, RETRY_SECONDS, GeneratorClient, Prefix
from rewardloop.clients.judged import judged, refused_fields_told
from rewardloop.clients.server import REQUEST_SECONDS, Server, asked_again, request_key
from rewardloop.config import Judging
from rewardloop.config.rubrics import Rubric
from rewardloop.errors import InvalidInput, RewardloopError, UpstreamMismatch, UpstreamRejected
from rewardloop.method.comparison import COMPARISON_VERSION
from rewardloop.method.judge_call import JudgeCall
from rewardloop.method.nonce import nonce_of
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

logger = logging.getLogger("rewardloop.clients")

ENGINE = "engine_address_sha256"
"""Field of the judge's model in its list of models: which engine it asks for its `POLICY`. Null
where that is served under another name. A digest, since an address may hold a password."""


def address_sha256(url: str) -> str:
    return hashlib.sha256(url.rstrip("/").encode()).hexdigest()


class JudgeClient:
    def __init__(self, url: str, key: str) -> None:
        self._server = Server(url, key, ceiling_seconds=REQUEST_SECONDS)
        self._generator: GeneratorClient | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.aclose()

    async def ask_itself(self, generator: GeneratorClient) -> None:
        """From now on `generator` is asked without the service, if that says that its engine is
        one of those. A service that does not answer is asked as before, and its errors are told."""
        try:
            answer = await self._server.get("/v1/models")
            engine = answer["data"][0].get(ENGINE)
        except (RewardloopError, AttributeError, KeyError, IndexError, TypeError) as error:
            logger.info("the judge does not say what its engine is (%r)", error)
            return
        if engine in map(address_sha256, generator.urls):
            self._generator = generator

    async def judge(
        self,
        prompt: Sequence[Message],
        response: str,
        judging: Judging,
        count: int,
        *,
        key: str | None = None,
        prefix: Prefix | None = None,
    ) -> list[WrittenJudgement]:
        """`count` judgements of one response. Where the generators are asked, that one which has
        the `prefix` is preferred.

        Those that carry no score are asked for again, `judging.max_reasks` times. A request that
        the judge's engine refuses (it does not fit the context, say) settles as judgements
        without a score.

        Raises:
            UpstreamUnavailable: no answer, after retries.
            UpstreamMismatch: what answers is no judge, or its engine is not what it should be.
        """
        written = await self._judge(prompt, response, judging, count, key, prefix)
        # By expectation the judge says the same each time.
        max_reasks = 0 if judging.mode is JudgementMode.EXPECTED else judging.max_reasks
        for number in range(1, max_reasks + 1):
            vain = [i for i, found in enumerate(written) if _may_be_asked_again(found)]
            if not vain:
                break
            again_key = request_key(key, "again", number, vain) if key else None
            again = await self._judge(prompt, response, judging, len(vain), again_key, prefix)
            for index, found in zip(vain, again, strict=True):
                written[index] = _instead_of(written[index], found)
        return written

    async def _judge(
        self,
        prompt: Sequence[Message],
        response: str,
        judging: Judging,
        count: int,
        key: str | None,
        prefix: Prefix | None,
    ) -> list[WrittenJudgement]:
        call = JudgeCall(
            conversation=_with(prompt, response),
            mode=judging.mode,
            nonce=nonce_of(key),
            rubric=judging.rubric,
            num_choices=count,
            temperature=judging.temperature,
            top_p=judging.top_p,
            max_tokens=judging.max_tokens,
        )
        try:
            answer = await self._ask(call, key, prefix)
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
        call = JudgeCall(
            conversation=_with(prompt, first),
            mode=mode,
            nonce=nonce_of(key),
            compare_with=second,
            temperature=temperature,
            max_tokens=max_tokens,
        )
        try:
            answer = await self._ask(call, key)
        except (UpstreamRejected, InvalidInput) as error:
            return WrittenComparison(
                error.message, None, UnscoredReason.REFUSED, COMPARISON_VERSION, "none", None
            )
        (choice,) = choices_of(answer, 1, "the judge")
        return _comparison(choice)

    async def _ask(
        self, call: JudgeCall, key: str | None, prefix: Prefix | None = None
    ) -> dict[str, Any]:
        if self._generator is not None:
            return await _asked_itself(self._generator, call, key, prefix)
        body = _for_the_service(call)

        async def ask(anew: bool) -> dict[str, Any]:
            answer: dict[str, Any] = await self._server.post(
                "/v1/chat/completions", body, key=key, anew=anew
            )
            return answer

        return await asked_again(ask, RETRY_SECONDS)


async def _asked_itself(
    generator: GeneratorClient, call: JudgeCall, key: str | None, prefix: Prefix | None
) -> dict[str, Any]:
    """What the service would answer, made here."""
    try:
        body = call.body(POLICY)
    except ValueError as error:
        raise InvalidInput(str(error)) from error
    with refused_fields_told(call, "behind the generators' addresses"):
        answer = await generator.chat(body, key=key, prefix=prefix)
    return judged(answer, call, "behind the generators' addresses")


def _with(prompt: Sequence[Message], response: str) -> list[Message]:
    return [*prompt, {"role": "assistant", "content": response}]


def _for_the_service(call: JudgeCall) -> dict[str, Any]:
    body = {
        "model": "judge",
        "messages": call.conversation,
        "n": call.num_choices,
        "temperature": call.temperature,
        "max_tokens": call.max_tokens,
        "judgement_mode": call.mode,
    }
    if call.compare_with is not None:
        return {**body, "compare_with": call.compare_with}
    return {**body, "top_p": call.top_p, **_rubric_field(call.rubric)}


def _rubric_field(rubric: Rubric) -> dict[str, Any]:
    """The service gives the additive rubric unless one is named."""
    if rubric == "additive":
        return {}
    return {"rubric": rubric if isinstance(rubric, str) else rubric.model_dump(mode="json")}


def _refused(message: str, judging: Judging) -> WrittenJudgement:
    return WrittenJudgement(
        raw_text=message,
        verdict=Verdict(None, UnscoredReason.REFUSED),
        rubric_version=rubric_text(judging.rubric).version,
        judge_version="none",
        mode=judging.mode,
        nonce=None,
        prompt_tokens=0,
        completion_tokens=0,
    )


def _may_be_asked_again(written: WrittenJudgement) -> bool:
    """A request that was refused will be again."""
    return written.verdict.reason not in (None, UnscoredReason.REFUSED)


def _instead_of(vain: WrittenJudgement, found: WrittenJudgement) -> WrittenJudgement:
    assert vain.verdict.reason is not None
    return replace(
        found,
        prompt_tokens=vain.prompt_tokens + found.prompt_tokens,
        completion_tokens=vain.completion_tokens + found.completion_tokens,
        unscored_before=(*vain.unscored_before, vain.verdict.reason),
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
                nonce=choice["judgement"]["nonce"],
                prompt_tokens=prompt_tokens,
                completion_tokens=num_tokens,
                distribution=choice["judgement"].get("distribution"),
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
            nonce=found["nonce"],
            distribution=found.get("distribution"),
            probability=found.get("probability"),
        )
