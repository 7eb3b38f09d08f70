"""What is taken out of a request, and what is refused."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardloop.errors import InvalidInput, TooLarge
from services.generator import sanitize as module


@pytest.fixture(autouse=True)
def cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_engine_takes_seeds", lambda: False)


def sanitize(body: bytes) -> tuple[bytes, list[str]]:
    return module.sanitize(body, chat=b"messages" in body)


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "policy", **fields}).encode()


def test_a_request_without_a_seed_passes_byte_for_byte() -> None:
    for asked in (body(), b'{ "top_p":1.0, "user": "\xc3\xa9\\u00e9" }', body(seed=None)):
        assert sanitize(asked) == (asked, [])


@pytest.mark.parametrize("seed", [0, 7, -5])
def test_a_seed_is_dropped_and_named(seed: object) -> None:
    passed, dropped = sanitize(body(seed=seed, n=2, messages=[{"content": "é"}]))
    assert dropped == ["seed"]
    assert json.loads(passed) == {"model": "policy", "n": 2, "messages": [{"content": "é"}]}


def test_a_gpu_keeps_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_engine_takes_seeds", lambda: True)
    assert sanitize(body(seed=7)) == (body(seed=7), [])


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 64},
        {"n": None},
        {"prompt": ["a"] * 16, "n": 4},
        {"prompt": list(range(1000)), "n": 64},
        {"prompt": [[1, 2, 3]] * 64},
        {"prompt": []},
        {"structured_outputs": {"regex": "x" * 3900}},
    ],
)
def test_what_one_request_may_ask_for(fields: dict[str, Any]) -> None:
    assert sanitize(body(**fields))[1] == []


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 65},
        {"prompt": ["a"] * 65},
        {"prompt": ["a"] * 17, "n": 4},
        {"prompt": [[1]] * 33, "n": 2},
        {"structured_outputs": {"regex": "x" * 4000}},
        {"messages": [], "tools": [{"function": {"name": "f" * 16_000}}]},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": "x" * 4000}}},
    ],
)
def test_what_would_be_too_much(fields: dict[str, Any]) -> None:
    with pytest.raises(TooLarge):
        sanitize(body(**fields))


def test_the_refusal_says_how_many() -> None:
    with pytest.raises(TooLarge, match="at most 64 sequences, not 68"):
        sanitize(body(prompt=["a"] * 17, n=4))


@pytest.mark.parametrize("value", ["4", 4.0, True, [4]])
def test_a_count_is_a_whole_number(value: object) -> None:
    with pytest.raises(InvalidInput, match="n must be a whole number"):
        sanitize(body(n=value))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["n", "prompt", "seed", "structured_outputs", "messages", "tools", "x"])


@given(st.dictionaries(NAMES, JSON))
def test_any_object_is_passed_on_or_refused(request: dict[str, Any]) -> None:
    try:
        passed, dropped = sanitize(json.dumps(request).encode())
    except InvalidInput:
        return
    assert json.loads(passed).get("seed") is None
    assert dropped == (["seed"] if request.get("seed") is not None else [])


@given(st.binary())
def test_any_bytes_are_passed_on_or_refused(data: bytes) -> None:
    with suppress(InvalidInput):
        assert isinstance(json.loads(sanitize(data)[0]), dict)
