"""A judging engine whose taste is known: a rule, served over the OpenAI protocol.

It stands where vLLM stands behind the judge service, reads prompt and response out of the
rubric's text, and writes a judgement that ends in the rule's score. For the control it
turns the rule round for some prompts: 5 less the score, so that the same two responses
make the pair, with the same margin, and chosen and rejected change places.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import exp
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from rewardloop.embedded.process import free_port

Rule = Callable[[str], float]
"""A response's score, 0 to 5."""

NUM_WORDS = 40
"""At which `brevity` has fallen to 5 / e."""
MIDDLE_LETTERS = 4.5
"""At which `long_words` gives half its points; about the mean of English."""
SPREAD_LETTERS = 0.5
_REQUEST = re.compile(r"<request>\n(.*?)\n</request>", re.DOTALL)
_RESPONSE = re.compile(r"<response>\n(.*)\n</response>", re.DOTALL)
_LAST_LINE = re.compile(r"^(.*): <total>\Z", re.MULTILINE)
"""As it is asked for: "Score", and the call's nonce."""


def brevity(response: str) -> float:
    """Shorter is better: 5 exp(-words / 40). It falls everywhere, so that every two lengths
    differ, and the loop can climb from any of them."""
    return 5 * exp(-len(response.split()) / NUM_WORDS)


def long_words(response: str) -> float:
    """Longer words are better, however many: 5 / (1 + exp(-(letters a word - 4.5) / 0.5)).

    Blind to length: on 72 answers of SmolLM2-135M-Instruct, four to a prompt, its rank
    correlation with the number of words is 0.04 within prompts and 0.09 over all.
    """
    words = re.findall(r"[a-z']+", response.lower())
    if not words:
        return 0.0
    letters = sum(map(len, words)) / len(words)
    return 5 / (1 + exp(-(letters - MIDDLE_LETTERS) / SPREAD_LETTERS))


RULES: dict[str, Rule] = {"brevity": brevity, "blind": long_words}


class RuleJudge:
    """Scores by its rule, and the other way round where the prompt is one of `reversed_prompts`."""

    def __init__(self) -> None:
        self.rule: Rule = brevity
        self.reversed_prompts: frozenset[str] = frozenset()
        """Their texts, as the rubric shows them."""

    def score(self, prompt: str, response: str) -> float:
        own = self.rule(response)
        return 5 - own if prompt in self.reversed_prompts else own

    async def completions(self, request: Request) -> JSONResponse:
        body: dict[str, Any] = await request.json()
        content = body["messages"][-1]["content"]
        prompt, response = _REQUEST.search(content), _RESPONSE.search(content)
        signed = _LAST_LINE.search(content)
        assert prompt is not None, "the rubric's text has no request"
        assert response is not None, "the rubric's text has no response"
        assert signed is not None, "the rubric's text asks for no score"
        text = f"The rule decides.\n{signed[1]}: {self.score(prompt[1], response[1]):.3f}"
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
            }
            for index in range(body.get("n", 1))
        ]
        usage = {"prompt_tokens": 1, "completion_tokens": len(choices), "total_tokens": 2}
        return JSONResponse(
            {
                "id": "rule",
                "object": "chat.completion",
                "created": int(time.time()),
                "model": "rule",
                "choices": choices,
                "usage": usage,
            }
        )


@contextmanager
def served(judge: RuleJudge) -> Iterator[str]:
    """Serve the judge on loopback for the block; yields its address."""
    port = free_port()
    app = Starlette(routes=[Route("/v1/chat/completions", judge.completions, methods=["POST"])])
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
