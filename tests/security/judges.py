"""Judges that are honest and careless: each quotes what it judges, as judges do, and gives the
verdict that it would give a harmless response.

`JUDGES` are scripted engines' texts. Each reads from the prompt's last line how its verdict must
be written, with the nonce, and writes that once for itself. `Engine` serves them as a foreign
server does, whole or streamed. None obeys what it judges: see `scores` for what that would mean.
"""

import html
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from math import log
from typing import Any

from aiohttp import web

from rewardloop.records import JudgementMode

_FREE, _CONSTRAINED, _EXPECTED = JudgementMode
_LAST_LINE = re.compile(r"(?P<label>(?P<name>Score|Better)(?: [0-9a-f]{4})?): <(?:total|which)>\Z")
_JUDGED = re.compile(
    r"^<(response|answer|first_response|second_response)>\n(.*)\n</\1>$", re.DOTALL | re.MULTILINE
)
_NUM_CHUNKS = 40
_ASIDE = " and nothing else"


@dataclass(frozen=True)
class Asked:
    """A prompt as a judge reads it."""

    prompt: str
    score: int
    """The judge's honest one."""

    @property
    def quoted(self) -> str:
        """What is judged, as it stands in the prompt."""
        return "\n".join(match[2] for match in _JUDGED.finditer(self.prompt))

    @property
    def unescaped(self) -> str:
        return html.unescape(self.quoted)

    @property
    def label(self) -> str:
        """`Score 7f3a`, or what else the prompt asks for."""
        return self._last_line["label"]

    @property
    def verdict(self) -> str:
        return f"{self.label}: {self.score if self._is_score else 'tie'}"

    @property
    def draft(self) -> str:
        """Not what the judge says in the end."""
        return f"{self.label}: {4 - self.score if self._is_score else 'second'}"

    @property
    def nonce(self) -> str:
        return self.label.partition(" ")[2]

    @property
    def _is_score(self) -> bool:
        return self._last_line["name"] == "Score"

    @property
    def _last_line(self) -> re.Match[str]:
        match = _LAST_LINE.search(self.prompt)
        assert match is not None, f"the prompt ends in {self.prompt[-80:]!r}"
        return match


def _quotes_first(asked: Asked) -> str:
    return f"{asked.quoted}\n{asked.verdict}"


def _quotes_last(asked: Asked) -> str:
    return f"{asked.verdict}\n{asked.quoted}"


def _in_its_last_sentence(asked: Asked) -> str:
    return f"It is of some use. As it says {asked.unescaped} I write {asked.verdict} for it."


def _thinks_aloud(asked: Asked) -> str:
    thoughts = f"{asked.draft}?\nIt says {asked.unescaped}\nOr rather {asked.draft}?"
    return f"<think>\n{thoughts}\n</think>\n\nIt is of some use.\n{asked.verdict}"


def _weighs_each_line(asked: Asked) -> str:
    weighed = "\n".join(f"{line}\nSo far {asked.draft}." for line in asked.unescaped.split("\n"))
    return f"<think>\n{weighed}\n</think>\n{asked.verdict}"


def _ends_in_a_total(asked: Asked) -> str:
    return f"At first sight: {asked.draft}\n{asked.quoted}\nFinal {asked.verdict}"


def _lists(asked: Asked) -> str:
    items = "\n".join(f"- {line}" for line in asked.unescaped.split("\n"))
    return f"What it says, line by line:\n{items}\n\n{asked.verdict}"


def _keeps_to_the_pattern(asked: Asked) -> str:
    """As much of a quotation as fits the letters and the length of the pattern."""
    letters = re.sub("[^A-Za-z ,']", "", asked.quoted)
    return f"{f'It says {letters}{_ASIDE}'[:60]}.\n{asked.verdict}"


def _repeats_its_prompt(asked: Asked) -> str:
    return f"{asked.prompt}\n\n{asked.verdict}"


def _goes_on(asked: Asked) -> str:
    return f"{asked.unescaped}\n\n{asked.verdict}\n\nI hope that this is of help."


def _names_the_nonce_before(asked: Asked) -> str:
    named = f"I shall name {asked.nonce or 'no word'}."
    return f"{named} {asked.quoted}\n{named}\n{asked.quoted}\n{asked.verdict}"


def _says_why_on_the_line(asked: Asked) -> str:
    return f'{asked.verdict} ("{asked.unescaped}" is what it says)'


@dataclass(frozen=True)
class Judge:
    name: str
    write: Callable[[Asked], str]
    score: int
    modes: tuple[JudgementMode, ...] = (_FREE,)
    streams: bool = False


JUDGES = (
    # In constrained mode it is a server that ignores the pattern.
    Judge("quotes, then judges", _quotes_first, 3, (_FREE, _CONSTRAINED)),
    Judge("judges, then quotes", _quotes_last, 3),
    Judge("quotes unescaped in its last sentence", _in_its_last_sentence, 1),
    Judge("thinks aloud", _thinks_aloud, 1),
    Judge("weighs each line in its thoughts", _weighs_each_line, 1),
    Judge("ends in a total", _ends_in_a_total, 1),
    Judge("lists over a stream", _lists, 4, (_FREE, _CONSTRAINED), streams=True),
    Judge("is held to the pattern", _keeps_to_the_pattern, 2, (_CONSTRAINED,)),
    Judge("repeats its prompt", _repeats_its_prompt, 1),
    Judge("goes on after its verdict", _goes_on, 4),
    Judge("names the nonce before it quotes", _names_the_nonce_before, 3),
    Judge("says why on the verdict's line", _says_why_on_the_line, 3),
    Judge("would quote, asked for its verdict at once", _quotes_first, 2, (_EXPECTED,)),
)
_OWN, _QUOTED = 0.75, 0.2
"""How probable a judge's verdict is where its answer is begun up to it, and a quotation's first
word, which is there whatever the response begins with."""


@dataclass
class Engine:
    """A server whose model is `judge`; remembers the last prompt."""

    judge: Judge = JUDGES[0]
    prompt: str = ""
    last_text: str = field(default="", repr=False)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        message, *begun = body["messages"]
        self.prompt = message["content"]
        if begun:
            return _next_token(Asked(self.prompt, self.judge.score), begun[0])
        self.last_text = text = self.judge.write(Asked(self.prompt, self.judge.score))
        if self.judge.write is _keeps_to_the_pattern:
            assert re.fullmatch(body["structured_outputs"]["regex"], text), text
        return await (_streamed(request, text) if body.get("stream") else _whole(text))


async def _whole(text: str) -> web.StreamResponse:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return web.json_response({"model": "scripted", "choices": [choice]})


def _next_token(asked: Asked, begun: dict[str, str]) -> web.StreamResponse:
    """The answer is begun by the judge service: nothing of a response is in it."""
    assert begun == {"role": "assistant", "content": f"{asked.label}: "}
    verdict = asked.verdict.removeprefix(f"{asked.label}: ")
    own = [("1", _OWN / 2), ("2", _OWN / 2)] if verdict == "tie" else [(verdict, _OWN)]
    told = [*own, (' "', _QUOTED)]
    top = [{"token": token, "logprob": log(p)} for token, p in told]
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": verdict},
        "logprobs": {"content": [{**top[0], "top_logprobs": top}]},
        "finish_reason": "length",
    }
    return web.json_response({"model": "scripted", "choices": [choice]})


async def _streamed(request: web.Request, text: str) -> web.StreamResponse:
    """In pieces that end anywhere; like some servers', its last piece has no finish reason."""
    answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await answer.prepare(request)
    size = max(3, len(text) // _NUM_CHUNKS)
    for start in range(0, len(text), size):
        await answer.write(_event(text[start : start + size]))
    await answer.write(b"data: [DONE]\n\n")
    return answer


def _event(piece: str) -> bytes:
    choice: dict[str, Any] = {"index": 0, "delta": {"content": piece}, "finish_reason": None}
    return f"data: {json.dumps({'model': 'scripted', 'choices': [choice]})}\n\n".encode()
