"""What an engine answered to a judge's call, read by the rubric.

Shared by the judge service and by a worker whose generators are the judge's engine, so that both
read the same of the same text. Counts nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rewardloop.clients.completions import choices_of, text_of
from rewardloop.errors import UpstreamMismatch, UpstreamRejected
from rewardloop.method.expectation import TOP_LOGPROBS, NoLogprobs
from rewardloop.method.judge_call import JudgeCall

NEEDED = ("continue_final_message", "add_generation_prompt", "logprobs", "top_logprobs")
"""Fields without which an engine cannot judge by expectation."""

Gained = dict[str, dict[str, Any]]
"""What a choice gains: its judgement or its comparison."""


def judged(
    answer: dict[str, Any],
    call: JudgeCall,
    engine: object,
    see: Callable[[Gained], Gained] = lambda gained: gained,
) -> dict[str, Any]:
    """The answer, each of its choices with a judgement or a comparison, which `see` is shown.

    Raises:
        UpstreamMismatch: it is no answer to such a call.
    """
    choices = choices_of(answer, call.num_choices, f"the judging engine {engine}")
    version = judge_version(answer)
    for choice in choices:
        choice |= see(_verdict_of(choice, call, version, engine))
    return {**answer, "choices": choices, "model": "judge"}


def judge_version(answer: dict[str, Any]) -> str:
    """Our generators stamp their weight version; another server is known by its model's name."""
    return str(answer.get("weight_version") or answer.get("model") or "unknown")


def _verdict_of(choice: dict[str, Any], call: JudgeCall, version: str, engine: object) -> Gained:
    if not call.is_expected:
        return call.reading(text_of(choice), choice.get("finish_reason"), version)
    try:
        return call.expectation(choice, text_of(choice), version)
    except NoLogprobs as error:
        raise _no_expectation(engine, str(error)) from error


@contextmanager
def refused_fields_told(call: JudgeCall, engine: object) -> Iterator[None]:
    """An engine that refuses what judging by expectation needs will refuse every request."""
    try:
        yield
    except UpstreamRejected as error:
        if call.is_expected and any(field in error.message for field in NEEDED):
            raise _no_expectation(engine, error.message) from error
        raise


def _no_expectation(engine: object, why: str) -> UpstreamMismatch:
    return UpstreamMismatch(
        f"the judging engine {engine} cannot judge by expectation ({why}). Mode expected needs "
        f"chat completions with {', '.join(NEEDED)} ({TOP_LOGPROBS}); use such an engine, as vLLM "
        "is, or mode free or constrained"
    )
