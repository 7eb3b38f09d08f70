"""Upper bounds of numbers: far beyond any use, and short of what no machine could do.

A run that was stored before a bound was set is read whatever it says: it was run.
"""

from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

STORED = {"is_stored": True}
"""The context in which a stored config is read."""

MANY = 10_000_000
"""Prompts, examples: more than any dataset of this field holds."""
LONG = 1_048_576
"""Tokens: more than any context."""


class AtMost:
    """`Annotated[int, AtMost(100)]`."""

    def __init__(self, limit: float) -> None:
        self._limit = limit

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.with_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {**handler(schema), "maximum": self._limit}

    def _checked(self, value: float, info: ValidationInfo) -> float:
        if info.context != STORED and value > self._limit:
            raise PydanticKnownError("less_than_equal", {"le": self._limit})
        return value
