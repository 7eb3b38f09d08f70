"""What the gate, the judge and the clients rely on in an engine, stub or real.

Each function in `CHECKS` asks a running engine behind its gate, and says by an assertion
where it differs. The stub passes them in tests/integration, vLLM in tests/e2e.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from rewardloop.method import rubric
from rewardloop.records import JudgementMode, Message

REQUEST: Message = {"role": "user", "content": "What is 2 + 2?"}
ANSWER: Message = {"role": "assistant", "content": "2 + 2 is 4."}
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
NONCE = "7f3a"


@dataclass(frozen=True)
class Engine:
    url: str
    api_key: str
    admin_key: str
    other_version: str
    """One that is published and not loaded."""

    def ask(self, path: str, **body: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.api_key}"}
        body = {"model": "policy", **body}
        return httpx.post(self.url + path, json=body, headers=headers, timeout=240)

    def chat(self, **body: Any) -> dict[str, Any]:
        answer = self.ask(CHAT, **{"messages": [REQUEST], "max_tokens": 8, **body})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def complete(self, prompt: str | list[int], **body: Any) -> dict[str, Any]:
        answer = self.ask(COMPLETIONS, prompt=prompt, **body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def admin(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self.admin_key}"}
        answer = httpx.request(method, self.url + path, json=body, headers=headers, timeout=240)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def weights(self) -> dict[str, Any]:
        return self.admin("GET", "/admin/weights")

    def activate(self, version: str) -> dict[str, Any]:
        return self.admin("POST", "/admin/activate", {"version": version})


def it_gives_n_choices(engine: Engine) -> None:
    choices = engine.chat(n=3)["choices"]
    assert sorted(choice["index"] for choice in choices) == [0, 1, 2]
    for choice in choices:
        assert isinstance(choice["message"]["content"], str)
        assert choice["finish_reason"] in ("stop", "length")


def it_counts_tokens_over_all_choices(engine: Engine) -> None:
    usage = engine.chat(n=3)["usage"]
    assert usage["prompt_tokens"] > 0
    assert 0 < usage["completion_tokens"] <= 3 * 8
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def it_says_which_weights_answered(engine: Engine) -> None:
    version = engine.weights()["version"]
    answer = engine.ask(COMPLETIONS, prompt="The sea", max_tokens=4)
    assert answer.json()["weight_version"] == version
    assert answer.headers["x-rewardloop-weight-version"] == version


def it_refuses_what_does_not_fit_the_context(engine: Engine) -> None:
    long: Message = {"role": "user", "content": "word " * 4000}
    answer = engine.ask(CHAT, messages=[long], max_tokens=8)
    assert answer.status_code == 400
    assert "context length" in answer.json()["error"]["message"]


def it_reads_content_parts_as_their_texts_in_lines(engine: Engine) -> None:
    parts = [{"type": "text", "text": "What is"}, {"type": "text", "text": "2 + 2?"}]
    in_parts = engine.chat(messages=[{"role": "user", "content": parts}])
    whole = engine.chat(messages=[{"role": "user", "content": "What is\n2 + 2?"}])
    assert in_parts["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"]


def it_takes_no_prompt_but_the_conversations(engine: Engine) -> None:
    for field, value in {
        "chat_template": "{{ messages[0].content }}",
        "kv_transfer_params": {"prompt_token_ids": [1, 2]},
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
        "echo": True,
    }.items():
        answer = engine.ask(CHAT, **{"messages": [REQUEST], "max_tokens": 8, field: value})
        assert answer.status_code == 400, field
        assert "is not served here" in answer.json()["error"]["message"]


def it_knows_no_other_model(engine: Engine) -> None:
    answer = engine.ask(COMPLETIONS, model="another", prompt="The sea", max_tokens=4)
    assert answer.status_code == 404
    assert "another" in answer.json()["error"]["message"]


def it_ends_before_a_stop_string(engine: Engine) -> None:
    (choice,) = engine.complete("The sea", max_tokens=32, stop=["e"])["choices"]
    assert "e" not in choice["text"]
    assert choice["finish_reason"] in ("stop", "length")


def it_holds_to_a_pattern(engine: Engine) -> None:
    (choice,) = engine.chat(
        messages=rubric.render([REQUEST, ANSWER], JudgementMode.CONSTRAINED, nonce=NONCE),
        max_tokens=48,
        structured_outputs={"regex": rubric.constrained_pattern(NONCE)},
    )["choices"]
    text = choice["message"]["content"]
    assert rubric.parse(text, choice["finish_reason"], NONCE).score is not None, text


def it_streams_to_an_end(engine: Engine) -> None:
    answer = engine.ask(CHAT, messages=[REQUEST], max_tokens=16, stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, done, nothing = answer.text.split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    version = engine.weights()["version"]
    assert {chunk["weight_version"] for chunk in chunks} == {version}
    reasons = [choice.get("finish_reason") for chunk in chunks for choice in chunk["choices"]]
    assert len([reason for reason in reasons if reason]) == 1


def it_gives_the_log_probabilities_of_a_prompt(engine: Engine) -> None:
    tokens = [5, 6, 7]
    answer = engine.complete(tokens, max_tokens=1, temperature=0, prompt_logprobs=0)
    first, *others = answer["choices"][0]["prompt_logprobs"]
    assert first is None
    assert len(others) == 2
    for token, position in zip(tokens[1:], others, strict=True):
        assert position[str(token)]["logprob"] <= 0


def it_verifies_the_version_it_holds(engine: Engine) -> None:
    before = engine.weights()
    report = engine.activate(before["version"])
    assert {"version": report["version"], "checksums": report["checksums"]} == before
    assert report["canary"]["mean_difference"] <= report["canary"]["bound"]


def it_swaps_there_and_back(engine: Engine) -> None:
    before = engine.weights()
    try:
        swapped = engine.activate(engine.other_version)
        assert swapped["version"] == engine.other_version
        assert swapped["checksums"] != before["checksums"]
        assert swapped["held_seconds"] > 0
        assert engine.chat()["weight_version"] == engine.other_version
    finally:
        back = engine.activate(before["version"])
    assert back["checksums"] == before["checksums"]


def it_is_ready_without_a_key(engine: Engine) -> None:
    engine.chat()  # which waits until it is verified
    for path in ("/health", "/ready"):
        assert httpx.get(f"{engine.url}{path}", timeout=60).status_code == 200


CHECKS: tuple[Callable[[Engine], None], ...] = (
    it_gives_n_choices,
    it_counts_tokens_over_all_choices,
    it_says_which_weights_answered,
    it_refuses_what_does_not_fit_the_context,
    it_reads_content_parts_as_their_texts_in_lines,
    it_takes_no_prompt_but_the_conversations,
    it_knows_no_other_model,
    it_ends_before_a_stop_string,
    it_holds_to_a_pattern,
    it_streams_to_an_end,
    it_gives_the_log_probabilities_of_a_prompt,
    it_verifies_the_version_it_holds,
    it_swaps_there_and_back,
    it_is_ready_without_a_key,
)
