"""What every part of a RunConfig holds to: it does not change, refuses unknown keys, takes
nothing for a number or a boolean that is none, and can be stored."""

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, field_validator
from pydantic_core import CoreSchema

from rewardloop.texts import check_storable

T = TypeVar("T")


def _make_strict(schema: Any) -> None:
    """Set `strict` on the numbers and booleans of a schema, at any depth."""
    if isinstance(schema, dict):
        if schema.get("type") in ("int", "float", "bool"):
            schema["strict"] = True
        for part in schema.values():
            _make_strict(part)
    elif isinstance(schema, list):
        for part in schema:
            _make_strict(part)


class StrictNumbers(BaseModel):
    """A model of what people send: a text is no number, a number no boolean, 3.0 no count."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Pydantic's strict mode, for numbers and booleans alone: as a setting of the model it
        would also refuse the strings that stand for ids and modes in JSON."""
        schema = handler(source)
        _make_strict(schema)
        return schema


def _kind_is_required(schema: dict[str, Any]) -> None:
    """In data a `kind` must be said, though in code it is the class's own."""
    if "kind" in schema.get("properties", {}):
        schema["required"] = ["kind", *schema.get("required", [])]


class Frozen(StrictNumbers):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, json_schema_extra=_kind_is_required
    )

    @field_validator("*")
    @classmethod
    def _storable(cls, value: T) -> T:
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str):
                check_storable(text)
        return value
