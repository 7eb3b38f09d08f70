"""Which fields of a completion request are served, and within which bounds."""

import ast
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from rewardloop.errors import NotServed
from services.generator.fields import REFUSED, WHY_REFUSED, Chat, Completion, served_fields
from tests.unit.cases import for_each

HI = [{"role": "user", "content": "Hi"}]
FOREIGN_TO_VLLM = {"split_special_tokens"}
"""The one field that is ours."""


def vllm_fields(module: str, name: str) -> set[str]:
    """The fields of one of the installed vLLM's requests, read without importing it."""
    found = importlib.util.find_spec("vllm")
    assert found is not None
    assert found.origin is not None
    source = Path(found.origin).parent / "entrypoints" / "openai" / module / "protocol.py"
    (request,) = (
        node
        for node in ast.parse(source.read_text()).body
        if isinstance(node, ast.ClassDef) and node.name == name
    )
    return {
        node.target.id
        for node in request.body
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and not node.target.id.startswith("_")
    }


def test_every_field_of_the_installed_vllm_is_decided_upon() -> None:
    """One that is new in a version of vLLM goes to `Chat` or `Completion`, or to `REFUSED`."""
    chat = vllm_fields("chat_completion", "ChatCompletionRequest")
    completion = vllm_fields("completion", "CompletionRequest")
    assert {"messages", "n", "kv_transfer_params"} <= chat
    served = Chat.model_fields.keys() | Completion.model_fields.keys()
    assert (chat | completion) - served == REFUSED
    assert served - (chat | completion) == FOREIGN_TO_VLLM
    assert REFUSED | {"echo", "add_special_tokens"} >= WHY_REFUSED.keys()


def test_what_a_stock_router_adds_to_a_chat_request_asks_for_nothing() -> None:
    """vllm-router 0.1.17 writes these into each request; with other values somebody asks."""
    added = {"separate_reasoning": True, "stream_reasoning": True, "no_stop_trim": False}
    assert served_fields({"messages": HI, **added}, chat=True) == {"messages": HI}
    with pytest.raises(NotServed, match="separate_reasoning is not served here"):
        served_fields({"messages": HI, "separate_reasoning": 1}, chat=True)


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": HI, "n": 4, "temperature": 0.7, "top_p": 0.9, "max_tokens": 512},
        {"messages": HI, "structured_outputs": {"regex": "a"}, "max_completion_tokens": 8},
        {"messages": HI, "stream": True, "stream_options": {"include_usage": True}},
        {"messages": HI, "logprobs": True, "top_logprobs": 5, "logit_bias": {"7": -100}},
        {"messages": HI, "tools": [], "parallel_tool_calls": True, "tool_choice": "auto"},
        {"messages": HI, "temperature": None, "stop": ["a", "b"], "seed": 5, "user": "me"},
        {"messages": HI, "temperature": 0, "prompt_logprobs": 0, "return_token_ids": True},
    ],
)
def test_what_clients_send_passes_unchanged(fields: dict[str, Any]) -> None:
    assert served_fields(fields, chat=True) == fields


@for_each(
    "prompt", ["The sea", ["a", "b"], [1, 2, 3], [[1, 2], [3]], [], "", [[]], 2**31 * [0][:0]]
)
def test_a_prompt_is_texts_or_token_ids(prompt: Any) -> None:
    fields = {"prompt": prompt, "logprobs": 5, "echo": True, "split_special_tokens": True}
    assert served_fields(fields, chat=False) == fields


@for_each("prompt", [7, [1, "a"], [[1], "a"], [[1.5]], [-1], [2**31], [True], {}])
def test_another_prompt_is_refused(prompt: Any) -> None:
    with pytest.raises(NotServed, match="prompt: must be a text or a list of texts"):
        served_fields({"prompt": prompt}, chat=False)


@pytest.mark.parametrize("name", sorted(REFUSED))
@pytest.mark.parametrize("chat", [True, False])
def test_every_refused_field_is_refused_by_its_name(name: str, chat: bool) -> None:
    with pytest.raises(NotServed, match=f"^{name} is not served here.*; leave it out$") as refused:
        served_fields({name: "x"}, chat=chat)
    assert refused.value.status == 400


@pytest.mark.parametrize("name", ["guided_json", "logits_processors", "best_of", "functions", "é"])
def test_so_is_what_nobody_knows(name: str) -> None:
    with pytest.raises(NotServed, match=f"{name} is not served here"):
        served_fields({name: [1]}, chat=True)


def test_all_refused_names_are_told_at_once() -> None:
    with pytest.raises(NotServed) as refused:
        served_fields({"priority": 1, "chat_template": "x", "zebra": {"a": 1}}, chat=True)
    assert refused.value.message == (
        "chat_template, priority, zebra are not served here; chat_template: prompts are rendered "
        "by the checkpoint's own chat template; leave them out"
    )


def test_a_thousand_refused_names_are_not_told_at_once() -> None:
    with pytest.raises(NotServed, match="and 980 more are not served here") as refused:
        served_fields({f"{number:04}" * 50: 1 for number in range(1000)}, chat=True)
    assert len(refused.value.message) < 3000


@pytest.mark.parametrize("nothing", [None, False, 0, "", [], {}])
def test_a_field_that_asks_for_nothing_is_taken_out(nothing: Any) -> None:
    found = served_fields(
        {"messages": HI, "chat_template": nothing, "priority": nothing}, chat=True
    )
    assert found == {"messages": HI}


@for_each(
    "fields, told",
    [
        ({"temperature": 2.5}, "temperature: must be at most 2"),
        ({"temperature": "0.5"}, "temperature: must be a number"),
        ({"top_p": 0}, "top_p: must be above 0"),
        ({"top_k": 2**31}, "top_k: must be at most 1000000"),
        ({"max_tokens": 0}, "max_tokens: must be at least 1"),
        ({"max_tokens": 2**63}, "max_tokens: must be at most 2147483647"),
        ({"max_tokens": 1.5}, "max_tokens: must be a whole number"),
        ({"prompt_logprobs": -1}, "prompt_logprobs: must be at least 0"),
        ({"prompt_logprobs": 10**6}, "prompt_logprobs: must be at most 20"),
        ({"top_logprobs": 10**6}, "top_logprobs: must be at most 20"),
        ({"logit_bias": {str(number): 1 for number in range(301)}}, "logit_bias"),
        ({"logit_bias": {"1": 1e300}}, "logit_bias.1: must be at most 100"),
        ({"stop": ["a"] * 5}, "stop: must be a text, or up to 4 texts"),
        ({"stop": "x" * 1001}, "stop: must be a text"),
        ({"stop_token_ids": [0] * 257}, "stop_token_ids"),
        ({"stop_token_ids": [2**31]}, "stop_token_ids.0: must be at most 2147483647"),
        ({"stream": "yes"}, "stream: must be true or false"),
        ({"stream_options": {"chunk": 1}}, "stream_options.chunk: there is no such key"),
        ({"user": "x" * 1001}, "user: must have at most 1000 characters"),
        ({"repetition_penalty": 0}, "repetition_penalty: must be at least 0.01"),
        ({"temperature": float("inf")}, "temperature: must be a finite number"),
    ],
)
def test_a_value_out_of_its_bounds_is_told_with_them(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(NotServed) as refused:
        served_fields({"messages": HI, **fields}, chat=True)
    assert told in refused.value.message
    assert len(refused.value.message) < 2000
