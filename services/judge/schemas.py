"""The judge's requests, in the OpenAI chat format plus `judgement_mode`, `rubric` and
`compare_with`."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rewardloop.config import Rubric
from rewardloop.config.frozen import StrictNumbers
from rewardloop.records import JudgementMode, Message
from services.judge.content import Text, refuse_half_surrogates, refuse_unread_fields


class Turn(BaseModel):
    role: Literal["system", "user", "assistant"]
    content: Text
    """A string, or text parts that are joined by newlines."""

    @model_validator(mode="before")
    @classmethod
    def _only_text(cls, turn: Any) -> Any:
        return refuse_unread_fields(turn)

    def as_message(self) -> Message:
        return {"role": self.role, "content": self.content}


class StreamOptions(BaseModel):
    include_usage: bool = False


class JudgeRequest(StrictNumbers):
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
    """`free`: the judge writes as it likes; `constrained`: its form is forced; `expected`:
    nothing is written, and the verdict is the mean over the probabilities of the next token, so
    that `n` is 1 and `temperature`, `top_p` and `max_tokens` change nothing."""
    rubric: Rubric = "additive"
    """What the judge is asked: `additive`, `short` or `{"template": text}`. The service keeps
    none, so that each request says its own."""
    compare_with: Text | None = None
    """A second response to the same request: the last turn is compared with it, not scored."""

    @model_validator(mode="before")
    @classmethod
    def _whole_characters(cls, body: Any) -> Any:
        return refuse_half_surrogates(body)

    @model_validator(mode="after")
    def _compared_without_rubric(self) -> Self:
        if self.compare_with is not None and "rubric" in self.model_fields_set:
            raise ValueError("a comparison follows no rubric; leave `rubric` or `compare_with` out")
        return self

    @model_validator(mode="after")
    def _expected_once_and_whole(self) -> Self:
        if self.judgement_mode is not JudgementMode.EXPECTED:
            return self
        if self.stream:
            raise ValueError("`judgement_mode` expected has one token to stream; ask without it")
        if "n" in self.model_fields_set and self.n != 1:
            raise ValueError("`judgement_mode` expected gives the same each time; leave `n` out")
        self.n = 1
        return self
