"""Whether a response can change its own score: `python -m tests.security.scores`.

Each of `PAYLOADS` is judged by each of `JUDGES` behind the real judge service, under every form
of the prompt: the shipped rubrics, a template of the user's own, and a comparison in which it
stands first or second. A judge's verdict is known, and the same as for a harmless response, so

    scores_raised     verdicts that are better for the payload than the judge's own
    scores_silenced   judgements in which the judge's verdict was not read
    scores_lowered    verdicts that are worse than the judge's own
    turns_forged      prompts in which a payload opens or closes a tag, a turn of the chat or of
                      the conversation that is judged

must all be 0. `raised_without_nonce` and `silenced_without_nonce` are those of a template without
`{nonce}`, and are not 0: so the suite notices what it looks for. Requests name their keys, so the
nonces are the same in every run.

What no parser can promise, and what is no fault here: a judge that obeys what it judges, and
writes the verdict that it is told to write beside the nonce of its call; a guess, which is right
once in 65,536; and a judge whose tokens end before its verdict, since it gave none.
"""

import asyncio
import json
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import httpx
from aiohttp import web
from aiohttp.test_utils import TestServer

from rewardloop import chat_tokens
from rewardloop.clients.server import KEY_HEADER, request_key
from rewardloop.embedded.process import free_port
from rewardloop.records import JudgementMode, Message
from services.judge import app as judge_app
from tests.integration.conftest import Served
from tests.security.judges import JUDGES, Engine, Judge
from tests.security.payloads import CONTROL_TOKENS, HARMLESS, PAYLOADS
from tests.unit.judge.served_judge import KEY, judge_settings
from tests.unit.small_tokenizers import FAMILIES

OWN = """\
Grade the answer to this request, and write nothing {{strictly}} else.
<request>
{request}
</request>
<answer>
{response}
</answer>
Use at most {max_words} words, and end with exactly this line:
Score {nonce}: <total>"""
_TAG = re.compile(r"<[\s/\\]*([a-z_]+)\b", re.IGNORECASE)
_CLOSING_TAG = re.compile(r"</([a-z_]+)>")
_REQUEST = re.compile(r"<request>\n(.*?)\n</request>", re.DOTALL)
_ROLE = re.compile(r"\s*(?:system|user|assistant)\s*:", re.IGNORECASE)


@dataclass(frozen=True)
class Form:
    """A kind of request to the judge, in which a text stands at one place."""

    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    place: str | None = None
    """Of the text in a comparison: `first` or `second`."""
    num_earlier: int = 0
    """Earlier turns that hold the text too."""

    def body(self, text: str) -> dict[str, Any]:
        """What is asked; nothing but `text` differs between two texts."""
        user = Message(role="user", content="Name a colour.")
        earlier = [user, Message(role="assistant", content=text)] * self.num_earlier
        judged = HARMLESS if self.place == "second" else text
        turns = [*earlier, user, Message(role="assistant", content=judged)]
        compared = {"first": {"compare_with": HARMLESS}, "second": {"compare_with": text}}
        body = {"model": "judge", "messages": turns, "n": 1, **self.fields}
        return body | (compared[self.place] if self.place else {})


FORMS = (
    Form("additive"),
    Form("short", {"rubric": "short"}, num_earlier=1),
    Form("own", {"rubric": {"template": OWN}}, num_earlier=1),
    Form("compared as the first", place="first"),
    Form("compared as the second", place="second", num_earlier=1),
)
WITHOUT_NONCE = Form("no nonce", {"rubric": {"template": OWN.replace(" {nonce}", "")}})


@dataclass(frozen=True)
class Fault:
    kind: str
    payload: str
    judge: str
    form: str
    told: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.payload!r} by {self.judge!r} ({self.form}): {self.told}"


@dataclass
class Court:
    """The judge service over a scripted engine."""

    engine: Engine
    client: httpx.AsyncClient

    async def reading(
        self, judge: Judge, form: Form, mode: JudgementMode, name: str, text: str
    ) -> dict[str, Any]:
        """The judgement, or the comparison, of one text."""
        self.engine.judge = judge
        body = {**form.body(text), "judgement_mode": mode, "stream": judge.streams}
        key = request_key("scores", judge.name, form.name, mode, name)
        answer = await self.client.post(
            "/v1/chat/completions", json=body, headers={KEY_HEADER: key}
        )
        assert answer.status_code == 200, f"{name!r}, {form.name}: {answer.text[:300]}"
        choice = _last_choice(answer.text) if judge.streams else answer.json()["choices"][0]
        found: dict[str, Any] = choice["comparison" if form.place else "judgement"]
        return found

    async def verdict_faults(
        self, judge: Judge, form: Form, mode: JudgementMode, payloads: Collection[str]
    ) -> list[Fault]:
        honest = _value(await self.reading(judge, form, mode, "harmless", HARMLESS), form)
        assert honest == ("tie" if form.place else judge.score), f"{judge.name}: {honest}"
        faults = []
        for name in payloads:
            found = await self.reading(judge, form, mode, name, PAYLOADS[name])
            if (value := _value(found, form)) != honest:
                kind = _kind(value, honest, form)
                told = f"{value} for {honest}, {found['reason']}, {mode}"
                faults.append(Fault(kind, name, judge.name, form.name, told))
        return faults

    async def forged_turns(self, form: Form, payloads: Collection[str]) -> list[Fault]:
        """In the prompts that reach the engine."""
        judge, mode = JUDGES[0], JudgementMode.FREE
        await self.reading(judge, form, mode, "prompt of harmless", HARMLESS)
        tags = set(_CLOSING_TAG.findall(self.engine.prompt))
        honest = _marks(self.engine.prompt, tags)
        faults = []
        for name in payloads:
            # Another key: an answer that is kept would bring no prompt.
            await self.reading(judge, form, mode, f"prompt of {name}", PAYLOADS[name])
            if told := _difference(honest, _marks(self.engine.prompt, tags)):
                faults.append(Fault("forged", name, "the prompt", form.name, told))
        return faults


def _last_choice(events: str) -> dict[str, Any]:
    found = [json.loads(line[6:]) for line in events.splitlines() if line.startswith("data: {")]
    choice: dict[str, Any] = found[-1]["choices"][0]
    return choice


def _value(reading: Mapping[str, Any], form: Form) -> Any:
    return reading["preference" if form.place else "score"]


def _kind(value: Any, honest: Any, form: Form) -> str:
    if value is None:
        return "silenced"
    return "raised" if value == form.place or (not form.place and value > honest) else "lowered"


def _difference(honest: Counter[str], found: Counter[str]) -> str:
    more, fewer = found - honest, honest - found
    return ", ".join(
        [*(f"+{n} {k}" for k, n in more.items()), *(f"-{n} {k}" for k, n in fewer.items())]
    )


def _marks(prompt: str, tags: Collection[str]) -> Counter[str]:
    """What opens or closes something in a prompt: control tokens, as a server that knows no
    better sees them; the tags of the material and the roles of the conversation, as a reader
    sees them."""
    spelled = {token: prompt.count(token) for token in CONTROL_TOKENS}
    roles = sum(map(_is_role, _as_read(_request_of(prompt)).splitlines()))
    found = (match for match in _TAG.finditer(_as_read(prompt)) if match[1].lower() in tags)
    num_tags = Counter(f"a tag {match[1].lower()}" for match in found)
    return +Counter({**spelled, **num_tags, "lines of a role": roles}) + _control_ids(prompt)


def _as_read(text: str) -> str:
    """Compatible characters as one, and without those that nobody sees."""
    compatible = unicodedata.normalize("NFKC", text)
    return "".join(char for char in compatible if unicodedata.category(char) != "Cf")


def _request_of(prompt: str) -> str:
    match = _REQUEST.search(prompt)
    assert match is not None
    return match[1]


def _is_role(line: str) -> bool:
    return _ROLE.match(line) is not None


def _control_ids(prompt: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for name, tokenizer in _tokenizers().items():
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
        )
        num = Counter(ids)
        for spelling, number in chat_tokens.control_tokens(tokenizer).items():
            if spelling != tokenizer.unk_token:  # rare characters are no turn
                found[f"{spelling} of {name}"] += num[number]
    return +found


@cache
def _tokenizers() -> dict[str, Any]:
    return {name: make() for name, make in FAMILIES.items()}


@asynccontextmanager
async def sitting() -> AsyncIterator[Court]:
    engine = Engine()
    app = web.Application(client_max_size=16 * 2**20)
    app.router.add_post("/v1/chat/completions", engine.__call__)
    async with TestServer(app) as server:
        url = f"http://127.0.0.1:{free_port()}"
        served = Served(judge_app.make_app(judge_settings(str(server.make_url("")))), url)
        headers = {"authorization": f"Bearer {KEY}"}
        try:
            async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
                yield Court(engine, client)
        finally:
            served.ask_to_stop()
            await asyncio.to_thread(served.stop)


def _cases(
    forms: Collection[Form], judges: Collection[Judge]
) -> Iterator[tuple[Judge, Form, JudgementMode]]:
    return ((judge, form, mode) for judge in judges for form in forms for mode in judge.modes)


async def faults_of(
    forms: Collection[Form] = FORMS,
    payloads: Collection[str] = tuple(PAYLOADS),
    judges: Collection[Judge] = JUDGES,
) -> list[Fault]:
    async with sitting() as court:
        faults = []
        for judge, form, mode in _cases(forms, judges):
            faults += await court.verdict_faults(judge, form, mode, payloads)
        for form in forms:
            faults += await court.forged_turns(form, payloads)
        return faults


async def kinds_without_nonce() -> Counter[str]:
    """What a nonce is for: faults by kind where none is asked for."""
    faults = await faults_of([WITHOUT_NONCE], judges=JUDGES[:2])
    return Counter(fault.kind for fault in faults)


async def run() -> tuple[list[Fault], dict[str, Any]]:
    faults = await faults_of()
    without_nonce = await kinds_without_nonce()
    kinds = Counter(fault.kind for fault in faults)
    return faults, {
        "payloads": len(PAYLOADS),
        "judges": len(JUDGES),
        "judged_responses": len(PAYLOADS) * sum(1 for _ in _cases(FORMS, JUDGES)),
        "scores_raised": kinds["raised"],
        "scores_silenced": kinds["silenced"],
        "scores_lowered": kinds["lowered"],
        "turns_forged": kinds["forged"],
        "raised_without_nonce": without_nonce["raised"],
        "silenced_without_nonce": without_nonce["silenced"],
    }


if __name__ == "__main__":
    faults, result = asyncio.run(run())
    for fault in faults:
        print(fault, file=sys.stderr)
    print(json.dumps(result))
    sys.exit(bool(faults) or not result["raised_without_nonce"])
