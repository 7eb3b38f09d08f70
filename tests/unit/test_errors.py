"""The tree of errors, on the wire and back."""

from collections import Counter

import pytest

from rewardloop import errors
from rewardloop.errors import RewardloopError, from_problem
from tests.unit.cases import for_each


def tree(root: type[RewardloopError]) -> list[type[RewardloopError]]:
    return [root, *(error for child in root.__subclasses__() for error in tree(child))]


ALL = tree(RewardloopError)

STATUS = {
    "internal": 500,
    "invalid-input": 422,
    "broken-file": 422,
    "too-large": 413,
    "not-served": 400,
    "not-found": 404,
    "conflict": 409,
    "unauthorized": 401,
    "forbidden": 403,
    "method-not-allowed": 405,
    "body-too-slow": 408,
    "unsupported-media-type": 415,
    "too-many-requests": 429,
    "upstream-unavailable": 503,
    "overdue": 502,
    "upstream-rejected": 502,
    "upstream-mismatch": 502,
    "unknown-model": 404,
    "upstream-failed": 502,
    "unreadable-answer": 502,
    "too-many-dead": 500,
    "prompt-too-long": 422,
    "checkpoint-invalid": 500,
    "swap-failed": 502,
    "disk-full": 507,
    "training-failed": 500,
    "diverged": 500,
    "training-killed": 500,
    "out-of-memory": 500,
    "no-preference-pairs": 500,
    "no-training-examples": 500,
    "too-few-prompts": 500,
    "judge-collapsed": 500,
    "evaluation-failed": 500,
    "environment-unfit": 500,
    "unexpected": 500,
}
"""Clients know errors by these words: a change breaks them."""


def test_kinds_and_statuses_are_frozen() -> None:
    assert {error.kind: error.status for error in ALL} == STATUS
    assert max(Counter(error.kind for error in ALL).values()) == 1


def test_what_may_pass_by_itself_is_worth_another_try() -> None:
    assert [error for error in ALL if error.transient] == [
        errors.BodyTooSlow,
        errors.TooManyRequests,
        errors.UpstreamUnavailable,
        errors.UpstreamFailed,
        errors.Overdue,
        errors.Unexpected,
    ]


def test_any_error_can_be_recorded() -> None:
    ours = errors.NotFound("there is none")
    assert errors.recordable(ours) is ours
    other = errors.recordable(KeyError("weights"))
    assert (type(other), other.message) == (errors.Unexpected, "KeyError: 'weights'")


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.kind)
def test_an_error_survives_the_wire(error: type[RewardloopError]) -> None:
    made = error("what is wrong", lines=[3, 4])
    for problem in (made.problem(), made.openai()):
        rebuilt = from_problem(problem, error.status)
        assert type(rebuilt) is error
        assert rebuilt.message == str(rebuilt) == "what is wrong"
        assert rebuilt.context == {"lines": [3, 4]}


def test_problem_details() -> None:
    assert errors.BrokenFile("line 3 is not JSON", lines=[3]).problem() == {
        "type": "urn:rewardloop:error:broken-file",
        "title": "broken file",
        "status": 422,
        "detail": "line 3 is not JSON",
        "lines": [3],
    }


def test_an_openai_client_finds_its_own_words() -> None:
    body = errors.Unauthorized("send the key").openai()
    assert body["error"] == {
        "message": "send the key",
        "type": "unauthorized",
        "code": 401,
        "param": None,
    }
    assert body["type"] == "urn:rewardloop:error:unauthorized"


@for_each(
    "status, expected",
    [
        (400, errors.UpstreamRejected),
        (307, errors.UpstreamMismatch),
        (402, errors.UpstreamMismatch),
        (404, errors.UpstreamMismatch),
        (405, errors.UpstreamMismatch),
        (408, errors.UpstreamUnavailable),
        (413, errors.UpstreamRejected),
        (422, errors.UpstreamRejected),
        (429, errors.UpstreamUnavailable),
        (500, errors.UpstreamFailed),
        (502, errors.UpstreamFailed),
        (503, errors.UpstreamUnavailable),
        (504, errors.UpstreamFailed),
        (529, errors.UpstreamUnavailable),
    ],
)
def test_a_strangers_error_is_known_by_its_status(
    status: int, expected: type[RewardloopError]
) -> None:
    for problem in ({"detail": "busy"}, {"type": "about:blank", "detail": "busy"}):
        error = from_problem(problem, status)
        assert type(error) is expected
        assert error.message == "busy"


def test_a_strangers_body_is_kept_where_it_has_no_detail() -> None:
    assert "out of coffee" in from_problem({"reason": "out of coffee"}, 418).message
