"""The call that a request to the judge asks for, and the counting of what comes of it.

The call's nonce follows from the request's key, so that whoever asks again is understood.
"""

from typing import Any

from rewardloop import telemetry
from rewardloop.errors import InvalidInput
from rewardloop.method.judge_call import JudgeCall
from rewardloop.method.nonce import nonce_of
from services.judge.schemas import JudgeRequest


def call_of(request: JudgeRequest, key: str | None) -> JudgeCall:
    return JudgeCall(
        conversation=[turn.as_message() for turn in request.messages],
        mode=request.judgement_mode,
        nonce=nonce_of(key),
        rubric=request.rubric,
        compare_with=request.compare_with,
        num_choices=request.n,
        temperature=request.temperature,
        top_p=request.top_p,
        max_tokens=request.max_completion_tokens or request.max_tokens,
    )


def body_of(call: JudgeCall, request: JudgeRequest, model: str) -> dict[str, Any]:
    """What the engine is asked.

    Raises:
        InvalidInput: the conversation does not end in a response to a user.
    """
    try:
        body = call.body(model)
    except ValueError as error:
        raise InvalidInput(str(error)) from error
    if request.stream:
        body |= {"stream": True, "stream_options": request.stream_options.model_dump()}
    return body


def counted(gained: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What a choice gained, its judgement counted. A comparison is none."""
    if judgement := gained.get("judgement"):
        telemetry.JUDGEMENTS.labels(judgement["reason"] or "scored").inc()
    return gained
