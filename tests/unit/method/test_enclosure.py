"""What others wrote cannot leave its tags, however it is written."""

import pytest

from rewardloop.method.enclosure import escaping, material, split_response, transcript
from rewardloop.records import Message
from tests.unit.growth import is_linear

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


@pytest.mark.parametrize("text", ["< ", "< / ", "<", "</\n"])
@pytest.mark.parametrize("repeated", [1, -1], ids=["its end", "all of it"])
def test_blanks_take_linear_time(text: str, repeated: int) -> None:
    last = text[-1] if repeated == 1 else text
    assert is_linear(lambda size: escaped(text + last * size), 2_500)


def test_only_among_several_turns_a_line_can_pass_for_another_turn() -> None:
    text = "Q\nassistant: A"
    assert material([{"role": "user", "content": text}]) == text
    several = material([{"role": "user", "content": text}, ANSWER, USER])
    assert several == "user: Q\nassistant&#58; A\n\nassistant: A\n\nuser: Q"
