"""What every part of a RunConfig holds to: it does not change, refuses unknown keys, and can
be stored."""

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, field_validator

from rewardloop.texts import check_storable

T = TypeVar("T")


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _storable(cls, value: T) -> T:
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str):
                check_storable(text)
        return value
