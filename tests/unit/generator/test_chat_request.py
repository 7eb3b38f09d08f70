"""Which chat requests are roles and texts alone, and which fields are not offered."""

from typing import Any

import pytest

from rewardloop.errors import NotServed
from services.generator.chat_request import (
    plain_messages,
    prompt_texts,
    require_text,
)
from tests.unit.cases import for_each

HI = {"role": "user", "content": "Hi"}


def asks(*messages: Any, **fields: Any) -> dict[str, Any]:
    return {"model": "policy", "messages": list(messages) or [HI], **fields}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"stream": True, "n": 4, "logprobs": True, "stop": ["x"], "max_tokens": 3},
        {"structured_outputs": {"regex": "a"}, "return_token_ids": True, "tools": []},
        {"add_generation_prompt": True, "continue_final_message": False, "tool_choice": "none"},
    ],
)
def test_roles_and_texts_are_plain(fields: dict[str, Any]) -> None:
    assert plain_messages(asks(**fields)) == [HI]


def test_what_no_template_sees_of_a_message_makes_no_difference() -> None:
    """Evaluation harnesses write `type` beside a message's content."""
    assert plain_messages(asks({**HI, "type": "text", "id": 7})) == [HI]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", ""),
        ([], ""),
        (["a", "b"], "a\nb"),
        ([{"type": "text", "text": "a"}, "b"], "a\nb"),
        ([{"text": "a"}], "a"),
        ([{"type": "input_text", "text": "a", "annotations": []}], "a"),
        ([{"type": "text", "text": "<|im_"}, {"type": "text", "text": "end|>"}], "<|im_\nend|>"),
    ],
)
def test_parts_are_joined_as_vllm_joins_them(content: Any, text: str) -> None:
    message = {"role": "assistant", "content": content, "tool_calls": [], "refusal": None}
    assert plain_messages(asks(HI, message)) == [HI, {"role": "assistant", "content": text}]


@for_each(
    "fields",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"reasoning_effort": "low"},
        {"continue_final_message": True, "add_generation_prompt": False},
        {"continue_final_message": True, "messages": [HI, {"role": "assistant", "content": "a"}]},
        {
            "continue_final_message": True,
            "add_generation_prompt": False,
            "messages": [{"role": "assistant", "content": "a"}],
        },
        {"add_generation_prompt": False},
        {"add_generation_prompt": "no"},
        {"messages": []},
        {"messages": "Hi"},
        {"messages": [HI, "Hi"]},
        {"messages": [{**HI, "name": "Ada"}]},
        {"messages": [{**HI, "reasoning_content": "hm"}]},
        {"messages": [{"role": "assistant", "content": "a", "tool_calls": [{"id": "1"}]}]},
        {"messages": [{"role": "tool", "content": "a", "tool_call_id": "1"}]},
        {"messages": [{"role": "developer", "content": "a"}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "user", "content": 7}]},
        {"messages": [{"role": "user"}]},
    ],
)
def test_what_needs_more_than_roles_and_texts_is_not_plain(fields: dict[str, Any]) -> None:
    assert plain_messages(asks(**fields)) is None


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"messages": [{"role": "end", "content": "a"}]}, "role 'end'"),
        ({"messages": [{"role": "<|im_end|>", "content": "a"}]}, "role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "'image_url'"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}, "'text'"),
        (
            {"messages": [{"role": "user", "content": [{"text": "a", "image_url": "b"}]}]},
            "content part",
        ),
        ({"messages": [{"role": "user", "content": [None]}]}, "'NoneType'"),
    ],
)
def test_what_could_bring_control_tokens_is_refused_by_name(
    fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(NotServed, match=r"not served here|unknown") as refused:
        require_text(asks(**fields))
    assert named in refused.value.message
    assert refused.value.status == 400


@pytest.mark.parametrize("messages", [None, 7, ["a"], [{}], [{"role": 7, "content": 8}]])
def test_what_is_no_conversation_is_left_to_vllm(messages: Any) -> None:
    require_text({"messages": messages})
    assert plain_messages({"messages": messages}) is None


def test_texts_of_a_prompt_are_found_wherever_they_stand() -> None:
    found = prompt_texts(
        asks(
            {"role": "user", "content": [{"type": "text", "text": "in a part"}], "name": "a name"},
            tools=[{"function": {"name": "f", "parameters": {"a key": {"enum": ["a value"]}}}}],
            stop=["a stop"],
        )
    )
    wanted = {"in a part", "a name", "f", "a key", "a value"}
    assert wanted <= set(found)
    assert {"a stop", "policy"}.isdisjoint(found)


def test_json_inside_a_text_is_looked_into() -> None:
    """vLLM decodes the arguments of a tool call, and an escape hides a control token."""
    arguments = '{"city": "\\u003c|im_end|>"}'
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    found = prompt_texts(asks({"role": "assistant", "tool_calls": [call]}))
    assert "<|im_end|>" in found


def test_a_request_nested_without_end_is_refused() -> None:
    deep: Any = "x"
    for _ in range(2000):
        deep = [deep]
    with pytest.raises(NotServed, match="nested too deeply"):
        prompt_texts(asks(tools=deep))
