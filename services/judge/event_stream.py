"""Server-sent events as any server may write them: bytes in, the data of each event out.

The format is WHATWG's (HTML, section 9.2.6): lines end in CR LF, LF or CR; a field's
value may follow its colon without a blank; lines that begin with a colon are
comments; an event's `data` lines are joined by newlines; a byte order mark may come
first. Characters may be cut by chunks. In one thing this is more lenient: an event
that the stream's end cuts off before its blank line is given too, since servers leave
that line out.
"""

import codecs
import re
from collections.abc import AsyncIterable, AsyncIterator

_LINE_END = re.compile("\r\n|\r|\n")


async def event_data(chunks: AsyncIterable[bytes]) -> AsyncIterator[str]:
    """The data of each event that has any."""
    data: list[str] = []
    async for line in _lines(chunks):
        if line:
            field, _, value = line.partition(":")
            if field == "data":
                data.append(value.removeprefix(" "))
        elif data:
            yield "\n".join(data)
            data = []
    if data:
        yield "\n".join(data)


async def _lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
    pending: list[str] = []
    after_cr = False
    async for chunk in chunks:
        text = decoder.decode(chunk)
        if not text:
            continue
        if after_cr:  # a CR LF that two chunks share is one line end
            text = text.removeprefix("\n")
        after_cr = text.endswith("\r") if text else False
        *whole, rest = _LINE_END.split(text)
        for line in whole:
            yield "".join([*pending, line])
            pending = []
        if rest:
            pending.append(rest)
    if pending or (tail := decoder.decode(b"", final=True)):
        yield "".join(pending) if pending else tail
