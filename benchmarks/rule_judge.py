"""A judging engine whose taste is known: a rule, served over the OpenAI protocol.

It stands where vLLM stands behind the judge service, reads the response out of the
rubric's prompt, and writes a judgement that ends in the rule's score. Shuffled, it gives
each response the score of another one: the same scores, and nothing to learn from them.
"""

import hashlib
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from rewardloop.embedded.process import free_port

WORDS_PER_POINT = 20
_RESPONSE = re.compile(r"<response>\n(.*)\n</response>", re.DOTALL)


def rule(response: str) -> float:
    """Shorter is better: 5 points less one for every 20 words, from 0 to 5."""
    return max(0.0, 5 - len(response.split()) / WORDS_PER_POINT)


class RuleJudge:
    """Scores by `rule`, or by `rule` of any response seen so far if `shuffled`."""

    def __init__(self) -> None:
        self.shuffled = False
        self._seen: list[float] = []

    def score(self, response: str) -> float:
        own = rule(response)
        self._seen.append(own)
        if not self.shuffled:
            return own
        digest = hashlib.sha256(response.encode()).hexdigest()
        return random.Random(digest).choice(self._seen)

    async def completions(self, request: Request) -> JSONResponse:
        body: dict[str, Any] = await request.json()
        found = _RESPONSE.search(body["messages"][-1]["content"])
        assert found is not None, "the rubric's prompt has no response"
        text = f"The length decides.\nScore: {self.score(found[1]):.2f}"
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
