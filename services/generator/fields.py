"""The fields of a completion request that are served, and within which bounds.

Every other field is refused by its name, known to vLLM or not: what is new in a version of
vLLM is not served before somebody has decided on it (a test compares the two lists). A field
that is null, false, 0 or empty asks for nothing: it is taken out where it is not served.

Knows JSON only: what may stand in messages, `chat_request` knows; what a grammar may be,
`grammar`.
"""

from typing import Annotated, Any

from annotated_types import Len
from pydantic import AfterValidator, ConfigDict, Field, ValidationError

from rewardloop.config.explain import explain
from rewardloop.config.frozen import StrictNumbers
from rewardloop.errors import NotServed

MAX_TOKEN_ID = 2**31 - 1
MAX_TOOLS_CHARS = 16_000


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_TOKEN_ID


def _prompt(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        are_texts = all(isinstance(item, str) for item in value)
        are_lists = all(isinstance(item, list) and all(map(_is_id, item)) for item in value)
        if are_texts or are_lists or all(map(_is_id, value)):
            return value
    raise ValueError("must be a text or a list of texts, or token ids or a list of such lists")


def _stop(value: Any) -> Any:
    texts = value if isinstance(value, list) else [value]
    if len(texts) > 4 or not all(isinstance(text, str) and len(text) <= 1000 for text in texts):
        raise ValueError("must be a text, or up to 4 texts, of at most 1,000 characters each")
    return value


Prompt = Annotated[Any, AfterValidator(_prompt)]
Stop = Annotated[Any, AfterValidator(_stop)]
TokenIds = Annotated[list[Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]], Len(max_length=256)]
Bias = Annotated[float, Field(ge=-100, le=100)]
Name = Annotated[str, Field(max_length=1000)]


class StreamOptions(StrictNumbers):
    model_config = ConfigDict(extra="forbid")
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class OfBoth(StrictNumbers):
    """What both routes take."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    model: Name | None = None
    n: Any = None
    """Bounded together with the number of prompts, by `sanitize`."""
    max_tokens: int | None = Field(default=None, ge=1, le=MAX_TOKEN_ID)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1, le=1_000_000)
    min_p: float | None = Field(default=None, ge=0, le=1)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=10)
    logit_bias: Annotated[dict[str, Bias], Len(max_length=300)] | None = None
    stop: Stop | None = None
    stop_token_ids: TokenIds | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    seed: int | None = Field(default=None, ge=-(2**63), le=2**63 - 1)
    """Dropped where the engine takes none, by `sanitize`."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    prompt_logprobs: int | None = Field(default=None, ge=0, le=20)
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    response_format: Any = None
    structured_outputs: Any = None
    user: Name | None = None


class Completion(OfBoth):
    """`POST /v1/completions`."""

    prompt: Prompt | None = None
    logprobs: int | None = Field(default=None, ge=0, le=20)
    echo: bool | None = None
    add_special_tokens: bool | None = None
    split_special_tokens: bool | None = None
    """Ours: see `encoding`."""


class Chat(OfBoth):
    """`POST /v1/chat/completions`."""

    messages: Any = None
    max_completion_tokens: int | None = Field(default=None, ge=1, le=MAX_TOKEN_ID)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    tools: Any = None
    """Bounded as a whole, by `sanitize`."""
    tool_choice: Any = None
    """`none` or `auto`: the others compile the tools into a grammar."""
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = Field(default=None, max_length=20)
    include_reasoning: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None


OF_ROUTERS = {"separate_reasoning": True, "stream_reasoning": True}
"""What vllm-router 0.1.17 adds to each chat request by itself, in these very values. They are
another engine's defaults and ask vLLM for nothing."""

WHY_REFUSED = {
    "add_special_tokens": "the chat template writes the special tokens",
    "chat_template": "prompts are rendered by the checkpoint's own chat template",
    "chat_template_kwargs": "prompts are rendered as the trainer renders them",
    "documents": "write them into a message",
    "echo": "repeat the prompt in the client",
    "ec_transfer_params": "it can put embeddings into the prompt",
    "ignore_eos": "answers end where the model ends them; bound them by max_tokens",
    "kv_transfer_params": "it can put token ids into the prompt",
    "prompt_embeds": "it can put embeddings into the prompt",
    "use_beam_search": "it holds the engine for n times as long",
}
"""For the fields whose refusal asks for a reason; the others are merely left out."""

REFUSED = frozenset(
    (
        *("allowed_token_ids", "bad_words", "cache_salt", "chat_template", "chat_template_kwargs"),
        *("documents", "ec_transfer_params", "ignore_eos", "kv_transfer_params"),
        *("length_penalty", "logprob_token_ids", "media_io_kwargs", "min_tokens", "mm_payload"),
        *("mm_processor_kwargs", "priority", "prompt_embeds", "repetition_detection"),
        *("request_id", "return_mm_kwargs", "return_prompt_text", "return_token_offsets"),
        *("routed_experts_prompt_start", "session_id", "stream_interval", "suffix"),
        *("thinking_token_budget", "truncate_prompt_tokens", "truncation_side"),
        *("use_beam_search", "vllm_xargs", "watermarking"),
    )
)
"""Fields that vLLM knows and no route here takes."""


def served_fields(request: dict[str, Any], *, chat: bool) -> dict[str, Any]:
    """The request without the fields that are not served and ask for nothing.

    Raises:
        NotServed: naming every field that is not served, or is out of its bounds.
    """
    model = Chat if chat else Completion
    unknown = [name for name in request if name not in model.model_fields]
    if asked := [name for name in unknown if request[name] and not _of_a_router(name, request)]:
        raise NotServed(_refusal(sorted(asked)))
    served = {name: value for name, value in request.items() if name in model.model_fields}
    try:
        model.model_validate(served)
    except ValidationError as error:
        raise NotServed(explain(error, model)) from error
    return served


def _of_a_router(name: str, request: dict[str, Any]) -> bool:
    return name in OF_ROUTERS and request[name] is OF_ROUTERS[name]


def _refusal(names: list[str]) -> str:
    shown = [name[:100] for name in names[:20]]
    told = ", ".join(shown) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    reasons = [f"{name}: {WHY_REFUSED[name]}" for name in shown if name in WHY_REFUSED]
    if len(names) == 1:
        why = f": {WHY_REFUSED[names[0]]}" if reasons else ""
        return f"{told} is not served here{why}; leave it out"
    return "; ".join([f"{told} are not served here", *reasons, "leave them out"])
