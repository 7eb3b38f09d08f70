"""What others wrote cannot leave its tags, however it is written."""

import time

import pytest

from rewardloop.method.enclosure import escaping, split_response, transcript
from rewardloop.records import Message

USER: Message = {"role": "user", "content": "Q"}
ANSWER: Message = {"role": "assistant", "content": "A"}

escaped = escaping("note", "long_note")


def test_only_the_named_tags_are_escaped() -> None:
    assert escaped("<note></ NOTE x><long_note><notes><b>1 < 2") == (
        "&lt;note>&lt;/ NOTE x>&lt;long_note><notes><b>1 < 2"
    )


def test_a_single_turn_is_its_own_text() -> None:
    assert transcript([USER]) == "Q"
    assert transcript([USER, ANSWER, USER]) == "user: Q\n\nassistant: A\n\nuser: Q"


def test_a_conversation_is_its_request_and_its_response() -> None:
    assert split_response([USER, ANSWER, USER, ANSWER]) == ([USER, ANSWER, USER], "A")


@pytest.mark.parametrize(
    "turns",
    [[], [USER], [ANSWER], [ANSWER, USER], [ANSWER, ANSWER], [USER, USER], [USER, ANSWER, USER]],
)
def test_what_does_not_end_in_a_response_to_a_user_is_refused(turns: list[Message]) -> None:
    with pytest.raises(
        ValueError, match="must hold a user's turn and end in the assistant's response"
    ):
        split_response(turns)


@pytest.mark.parametrize("text", ["<" + " " * 50_000, "< / " * 10_000, "<" * 50_000])
def test_blanks_take_linear_time(text: str) -> None:
    started = time.process_time()
    escaped(text)
    assert time.process_time() - started < 0.15
