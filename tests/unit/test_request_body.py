"""What of a request's body is read, and what JSON is taken."""

import asyncio

import pytest
from starlette.types import Message

from rewardloop.errors import BodyTooSlow, InvalidInput, TooLarge, UnsupportedMedia
from services.request_body import MAX_JSON_DEPTH, Body, BodyRule, require_sound_json

RULE = BodyRule(max_bytes=100, total_seconds=5, idle_seconds=5)


def body_of(*chunks: bytes, rule: BodyRule = RULE, **headers: str) -> tuple[Body, list[bytes]]:
    """A body, and the chunks of it that nobody has taken yet."""
    left = list(chunks)

    async def receive() -> Message:
        if not left:
            await asyncio.Event().wait()  # the client sends no more, and stays
        chunk = left.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": chunk != b""}

    names = {name.replace("_", "-"): value for name, value in headers.items()}
    encoded = [(name.encode(), value.encode()) for name, value in names.items()]
    return Body({"headers": encoded}, receive, rule), left


CHUNKED = {"transfer_encoding": "chunked"}


async def test_a_body_is_read_whole() -> None:
    body, _ = body_of(b"ab", b"cd", b"", **CHUNKED)
    assert not body.is_whole
    assert await body.read() == b"abcd"
    assert body.is_whole


@pytest.mark.parametrize("headers", [{}, {"content_length": "0"}, {"content_length": "00"}])
async def test_a_request_without_a_body_has_it_whole_at_once(headers: dict[str, str]) -> None:
    body, _ = body_of(b"", **headers)
    assert body.is_whole
    assert await body.read() == b""


async def test_a_body_that_nobody_announced_has_a_bound_too() -> None:
    body, left = body_of(*[b"x" * 40] * 10, b"")
    with pytest.raises(TooLarge):
        await body.read()
    assert len(left) == 11 - 3


async def test_an_announced_size_is_refused_before_a_byte_is_read() -> None:
    body, left = body_of(b"x" * 101, content_length="101")
    with pytest.raises(TooLarge, match="more than 100 bytes; send less at a time"):
        body.require_size()
    assert len(left) == 1
    body_of(content_length="100")[0].require_size()


async def test_a_body_of_unknown_size_is_read_up_to_its_bound_and_no_further() -> None:
    body, left = body_of(*[b"x" * 40] * 10, b"", **CHUNKED)
    with pytest.raises(TooLarge):
        await body.read()
    assert len(left) == 11 - 3  # 40, 80, 120


async def test_a_body_that_stops_is_given_up() -> None:
    rule = BodyRule(100, total_seconds=5, idle_seconds=0.05)
    body, _ = body_of(b'{"model"', rule=rule, **CHUNKED)
    with pytest.raises(BodyTooSlow, match=r"may pause for 0\.05 s"):
        await body.read()


async def test_a_body_that_trickles_is_given_up_as_a_whole() -> None:
    rule = BodyRule(100, total_seconds=0.2, idle_seconds=5)

    async def receive() -> Message:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    body = Body({"headers": [(b"transfer-encoding", b"chunked")]}, receive, rule)
    with pytest.raises(BodyTooSlow):
        await body.read()


async def test_a_refused_body_is_thrown_away_up_to_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.request_body.DRAINED_BYTES", 1000)
    body, left = body_of(*[b"x" * 300] * 10, **CHUNKED)
    await body.drain()
    assert len(left) == 10 - 4


@pytest.mark.parametrize(
    "kind", ["application/json", "APPLICATION/JSON; charset=utf-8", "application/vnd.api+json"]
)
def test_json_may_be_named_in_several_ways(kind: str) -> None:
    asyncio.run(_typed(kind))


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "json"])
def test_another_media_type_is_told(kind: str) -> None:
    with pytest.raises(UnsupportedMedia, match="content-type: application/json"):
        asyncio.run(_typed(kind))


async def _typed(kind: str) -> None:
    body_of(content_length="2", content_type=kind)[0].require_json_type()


def nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    return (opening * depth + "1" + closing * depth).encode()


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b'"a"',
        b"[1, 2.5, -3e7, null, true]",
        b'\xef\xbb\xbf{"a": 1}',
        nested(MAX_JSON_DEPTH),
        b'{"a": "' + b"[" * 1000 + b'", "b": "\\"' + b"{" * 1000 + b'\\\\"}',
        b"[" + b"[]," * 5000 + b"{}]",
    ],
)
def test_sound_json_passes(text: bytes) -> None:
    require_sound_json(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (nested(MAX_JSON_DEPTH + 1), "nested deeper than 100 levels"),
        (nested(MAX_JSON_DEPTH + 1, '{"a":', "}"), "nested deeper"),
        (b"[" * 100_000, "nested deeper"),
        (b'{"a":' * 100_000, "nested deeper"),
        (b'{"a": "x\\"}]", "b": ' + nested(101) + b"}", "nested deeper"),
        (b"[NaN]", "NaN is no number"),
        (b"[1e999]", "1e999 is no number that fits"),
        (b'{"a": Infinity}', "Infinity is no number"),
        (b'{"a": [{"b": -Infinity}]}', "-Infinity is no number"),
        (b"{", "not JSON"),
        (b"", "not JSON"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8"),
        ('{"seed": 1}'.encode("utf-16"), "not UTF-8"),
        (b'{"a": "\xe9"}', "not UTF-8"),
        (b"9" * 5000, "body: "),
        (b'{"seed": 1, "seed": 1}', "the key 'seed' is given twice"),
        (b'{"a": [{"b": {"seed": 1, "c": 2, "seed": 3}}]}', "the key 'seed' is given twice"),
        (b'{"seed": 1, "\\u0073eed": 2}', "the key 'seed' is given twice"),
        (b'\xef\xbb\xbf{"seed": 1, "seed": 2}', "the key 'seed' is given twice"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_unsound_json_is_refused(text: bytes, told: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        require_sound_json(text)
    assert told in refused.value.message


def test_equal_names_of_different_objects_pass() -> None:
    require_sound_json(b'{"a": {"seed": 1}, "b": {"seed": 2}, "c": [{"seed": 3}, {"seed": 4}]}')


def test_many_brackets_side_by_side_are_not_deep() -> None:
    require_sound_json(b"[" + b'{"a": [1]},' * 10_000 + b"{}]")
