"""Turns the text of a request into token ids, so that text never becomes a control token.

vLLM encodes a rendered conversation as one text, in which a message that spells `<|im_end|>`
closes its own turn (vllm issue 31735). So the gate, which stands in the process that has the
tokenizer, encodes conversations by `rewardloop.chat_tokens`, as the trainer does, and gives
vLLM the ids in `kv_transfer_params.prompt_token_ids`. That is vLLM's field for ids that
another stage of a disaggregated server made; everything behind the tokenizer (streaming,
several choices, stops, grammars, log-probabilities) is as ever. It can go when vLLM encodes
messages apart from the template.

Invariants: what is plain (see `chat_request`) is encoded here, whatever it spells. What is
not plain reaches vLLM's own rendering only if it spells no control token.
"""

import asyncio
import json
from typing import Any

from rewardloop import chat_tokens
from rewardloop.errors import InvalidInput, NotServed, PromptTooLong
from services.generator.chat_request import (
    begins_answer,
    plain_messages,
    prompt_texts,
    require_text,
)

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
PLAIN_TEXT = "split_special_tokens"
"""A field of ours in a request for a completion, under the name that transformers gives it:
its text spells no control tokens. Without it, whoever holds the key writes them."""
MAX_CHARS_A_TOKEN = 256
"""A prompt of more characters than so many a token of the context is not encoded at all."""


async def encoded(path: str, body: bytes, engine: Any) -> bytes:
    """The body with the prompt's ids in it, as far as the gate encodes that prompt.

    `engine` is vLLM's engine client. One that has no tokenizer, as the stub, renders itself.

    Raises:
        InvalidInput: a text holds half a character.
        NotServed: a message is no text, or the conversation is no valid one.
        PromptTooLong: the prompt leaves no room in the model's context.
    """
    request = json.loads(body)
    _require_characters(body, request)
    if path == CHAT:
        require_text(request)
    renderer = getattr(engine, "renderer", None)
    if renderer is None:
        return body
    encode = _chat if path == CHAT else _completion
    changed = await asyncio.to_thread(
        encode, request, renderer.get_tokenizer(), engine.model_config.max_model_len
    )
    return json.dumps(request).encode() if changed else body


def ending_at(body: bytes, stop_ids: list[int]) -> bytes:
    """The body with more ids that end its answers: those of a version that was swapped in."""
    if not stop_ids:
        return body
    request = json.loads(body)
    asked = request.get("stop_token_ids") or []
    return json.dumps({**request, "stop_token_ids": [*asked, *stop_ids]}).encode()


def _require_characters(body: bytes, request: dict[str, Any]) -> None:
    """JSON can spell half of a surrogate pair, which is no character and which no tokenizer
    takes.

    Raises:
        InvalidInput: a text of the request holds one.
    """
    if b"\\ud" not in body.lower():
        return
    try:
        json.dumps(request, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            "a text holds half of a surrogate pair (such as \\ud83d alone), which is no "
            "character; send the whole pair or leave it out"
        ) from error


def _chat(request: dict[str, Any], tokenizer: Any, max_model_len: int) -> bool:
    """Puts the ids of a plain conversation into the request; whether it did."""
    messages = plain_messages(request)
    if messages is None:
        _require_no_control_tokens(request, tokenizer, max_model_len)
        return False
    _require_short([message["content"] for message in messages], max_model_len)
    begun = messages.pop()["content"] if begins_answer(request) else ""
    try:
        ids = chat_tokens.prompt_ids(tokenizer, messages)
    except chat_tokens.TemplateRefused as error:
        raise NotServed(str(error)) from error
    if begun:
        _take_out_begun(request)
        ids += chat_tokens.text_ids(tokenizer, begun)
    _require_room(len(ids), max_model_len)
    request["kv_transfer_params"] = {"prompt_token_ids": ids}
    return True


def _take_out_begun(request: dict[str, Any]) -> None:
    """The beginning of the answer is in the ids. Templates trim or refuse an unfinished turn,
    so vLLM, which renders all the same, is shown what stands before it."""
    for field in ("continue_final_message", "add_generation_prompt"):
        del request[field]
    request["messages"] = request["messages"][:-1]


def _completion(request: dict[str, Any], tokenizer: Any, max_model_len: int) -> bool:
    """Puts ids in the place of a text, where the request wants it as plain text."""
    if not request.pop(PLAIN_TEXT, False):
        return False
    prompt = request.get("prompt")
    texts: list[Any] = prompt if isinstance(prompt, list) else [prompt]
    if not all(isinstance(text, str) for text in texts):
        raise NotServed(f"with {PLAIN_TEXT} the prompt must be a text or a list of texts")
    for text in texts:
        _require_short([text], max_model_len)
    opening = tokenizer("")["input_ids"] if request.get("add_special_tokens", True) else []
    ids = [[*opening, *chat_tokens.text_ids(tokenizer, text)] for text in texts]
    _require_room(max(map(len, ids), default=0), max_model_len)
    request["prompt"] = ids if isinstance(prompt, list) else ids[0]
    return True


def _require_no_control_tokens(request: dict[str, Any], tokenizer: Any, max_model_len: int) -> None:
    """
    Raises:
        NotServed: vLLM would render a text as a control token.
    """
    texts = prompt_texts(request)
    _require_short(["".join(texts)], max_model_len)
    names = {number: name for name, number in chat_tokens.control_tokens(tokenizer).items()}
    for text in ("\n".join(texts), "".join(texts)):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if spelled := sorted({names[number] for number in ids if number in names}):
            raise NotServed(
                f"the text spells the control token {spelled[0]!r}, which is taken as text only "
                "in a conversation of roles and texts: leave tools, names and unfinished turns "
                "out of the request, or the token out of its text"
            )


def _require_short(turns: list[str], max_model_len: int) -> None:
    """A turn takes a token at least, and a token holds so many characters at most."""
    num_chars = sum(map(len, turns))
    if num_chars > max_model_len * MAX_CHARS_A_TOKEN or len(turns) > max_model_len:
        raise PromptTooLong(
            f"This model's maximum context length is {max_model_len} tokens, and the prompt of "
            f"{len(turns)} turns and {num_chars} characters is longer. Please reduce the length "
            "of the input prompt."
        )


def _require_room(num_tokens: int, max_model_len: int) -> None:
    """vLLM says it in other words where it is given ids, and clients know these."""
    if num_tokens >= max_model_len:
        raise PromptTooLong(
            f"This model's maximum context length is {max_model_len} tokens. However, your "
            f"prompt contains {num_tokens} input tokens, which leaves no room for an answer. "
            "Please reduce the length of the input prompt."
        )
