"""Server-sent events in every form that the format allows, however chunks cut them."""

from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.judge.event_stream import event_data


async def chunked(body: bytes, cuts: Sequence[int] = ()) -> AsyncIterator[bytes]:
    bounds = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    for start, end in pairwise(bounds):
        yield body[start:end]


async def read(body: bytes, cuts: Sequence[int] = ()) -> list[str]:
    return [data async for data in event_data(chunked(body, cuts))]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("data: a\n\ndata: b\n\n", ["a", "b"]),
        ("data: a\r\n\r\ndata: b\r\n\r\n", ["a", "b"]),
        ("data: a\r\ndata: b\r\n\r\n", ["a\nb"]),
        ("data: a\r\rdata: b\r\r", ["a", "b"]),
        ("data: a\r\n\n data: x\ndata: b\n\r\n", ["a", "b"]),
        ("data:a\n\ndata:  b\n\n", ["a", " b"]),
        ("data: a\ndata: b\ndata\ndata:\n\n", ["a\nb\n\n"]),
        ("event: message\nid: 7\nretry: 100\ndata: a\n\n", ["a"]),
        (": ping\n\n:\n\ndata: a\n: x\n\n", ["a"]),
        ("event: ping\n\ndata: a\n\n", ["a"]),
        ("\ufeffdata: a\n\n", ["a"]),
        ("data: a\n\ndata: b", ["a", "b"]),
        ("data: a\n\ndata: b\n", ["a", "b"]),
        ("data: a\u2028\u0085\x0cb\n\n", ["a\u2028\u0085\x0cb"]),
        ("data: a: b\n\nDATA: c\n\ndatax: d\n\n", ["a: b"]),
        ("", []),
        ("\n\n\n", []),
    ],
)
async def test_events_are_read(body: str, expected: list[str]) -> None:
    assert await read(body.encode()) == expected
    assert await read(body.encode(), range(len(body.encode()))) == expected  # byte by byte


@given(
    st.lists(st.integers(0, 10_000), max_size=6),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["data: ", "data:"]),
)
@settings(max_examples=25)
async def test_chunks_may_end_anywhere(cuts: list[int], end: str, field: str) -> None:
    texts = ["caf\u00e9 \U0001f44d", "\u2028x", "{}"]
    body = "".join(f"event: x{end}{field}{text}{end}{end}" for text in texts)
    assert await read(body.encode(), cuts) == texts


async def test_bytes_that_are_no_utf_8_do_not_end_the_stream() -> None:
    assert await read(b"data: a\xff\n\ndata: b\n\n") == ["a\ufffd", "b"]
