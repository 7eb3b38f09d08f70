"""The judge's requests, in the OpenAI chat format plus `judgement_mode` and `compare_with`."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from rewardloop.records import JudgementMode, Message


def _as_text(content: Any) -> Any:
    """The OpenAI format also allows a list of text parts."""
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return content


class Turn(BaseModel):
    role: Literal["system", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_as_text)]

    def as_message(self) -> Message:
        return {"role": self.role, "content": self.content}


class StreamOptions(BaseModel):
    include_usage: bool = False


class JudgeRequest(BaseModel):
    """A conversation that ends in the assistant's response to be judged."""

    model_config = ConfigDict(extra="forbid")
    model: Literal["judge"]
    messages: list[Turn] = Field(min_length=2)
    n: int = Field(default=3, ge=1, le=32)
    temperature: float = Field(default=0.7, ge=0, le=2)
    top_p: float = Field(default=0.9, gt=0, le=1)
    max_tokens: int = Field(default=512, ge=8, le=8192)
    max_completion_tokens: int | None = Field(default=None, ge=8, le=8192)
    """The OpenAI name for `max_tokens`; wins over it."""
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    user: str | None = None
    judgement_mode: JudgementMode = JudgementMode.FREE
    """`free`: the judge writes as it likes; `constrained`: its form is forced."""
    compare_with: str | None = None
    """A second response to the same request: the last turn is compared with it, not scored."""
