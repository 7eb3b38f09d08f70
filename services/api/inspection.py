"""`/v1/datasets`: what of a file or of prompts is known, before anything is stored."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, field_validator

from rewardloop.datasets import Format, inspection
from rewardloop.datasets.inspection import Item, Measured
from rewardloop.datasets.names import DATASET_NAME
from rewardloop.errors import InvalidInput, RewardloopError
from rewardloop.records import Message, PromptRecord
from rewardloop.store import overlap, versions
from rewardloop.texts import check_storable
from services.api import token_lengths
from services.api.context import Context, Ctx, DatasetName, Storable
from services.request_body import BodyRule

router = APIRouter(tags=["datasets"])

FILE = BodyRule(
    64 * 2**20,
    total_seconds=600,
    idle_seconds=30,
    is_json=False,
    mend="inspect it with `rewardloop inspect`, or send a part of it",
)
MAX_NAME_BYTES = 255
"""More is no file's name on Linux."""
ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
"""Not compressed ones: nobody knows how large they are before they are unpacked."""


class Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")
    messages: list[Message] = Field(min_length=1)
    answers: list[Storable] = []

    @field_validator("messages")
    @classmethod
    def _are_storable(cls, messages: list[Message]) -> list[Message]:
        for message in messages:
            check_storable(message["content"])
        return messages


class AskedPrompts(BaseModel):
    model_config = ConfigDict(extra="forbid")
    prompts: list[Asked] = Field(min_length=1, max_length=10_000)


_LENGTHS = {
    "type": "array",
    "minItems": 2,
    "maxItems": 2,
    "items": {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}}]},
}
"""A prompt's length, then those of its answers; not every tool knows `prefixItems`."""


class Comparison(BaseModel):
    known: int
    """Prompts that the dataset holds already."""
    elsewhere: dict[str, int]
    """Prompts whose question stands in another dataset, by its name."""
    held_out: int
    """Prompts whose question some run holds out to measure its judges by."""
    unit: str
    """What lengths count: `tokens` of the served model, or `characters`."""
    version: str | None
    """The model version whose tokens are counted."""
    context: int | None
    """Tokens that the engine's context holds; null where it does not say."""
    lengths: list[Annotated[tuple[int, list[int]], WithJsonSchema(_LENGTHS)]]
    """Of each prompt, and of each of its answers, in the request's order."""


@router.post("/datasets/{dataset}/compare")
async def compare(ctx: Ctx, dataset: DatasetName, request: AskedPrompts) -> Comparison:
    """How prompts stand to what is stored, and how long they are. Stores nothing."""
    measured = await _measured(ctx, dataset, [Item(a.messages, a.answers) for a in request.prompts])
    return Comparison.model_validate(measured, from_attributes=True)


_A_FILE = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post("/datasets/inspect", openapi_extra=_A_FILE)
async def inspect(
    ctx: Ctx,
    request: Request,
    filename: Annotated[Storable, Query(min_length=1, max_length=255)],
    dataset: Annotated[str, Query(pattern=DATASET_NAME)] = "seed",
    format: Format = Format.AUTO,
    language: Storable = "en",
) -> dict[str, Any]:
    """What `import` and `import-ranked` would take of a file, which is the request's body.

    Stores nothing. The file's name says how it is read.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / _checked_name(filename)
        await _save(request, path)
        try:
            found = await asyncio.to_thread(inspection.inspect, path, format, language=language)
        except RewardloopError as error:
            error.message = error.message.replace(f"{folder}/", "")
            raise
    measured = await _measured(ctx, dataset, found.items)
    return inspection.report(found, dataset, measured)


def _checked_name(filename: str) -> str:
    """
    Raises:
        InvalidInput: the name is a path, or of a kind of file that is not taken over REST.
    """
    if PurePath(filename).name != filename or not filename.lower().endswith(ENDINGS):
        raise InvalidInput(
            f"filename {filename!r} must be a name without a folder that ends in one of "
            f"{', '.join(ENDINGS)}; `rewardloop inspect` reads the other kinds of files"
        )
    if len(filename.encode()) > MAX_NAME_BYTES:
        raise InvalidInput(f"filename has more than {MAX_NAME_BYTES} bytes; give a shorter name")
    return filename


async def _save(request: Request, path: Path) -> None:
    """
    Raises:
        TooLarge, BodyTooSlow: the body breaks the rule `FILE`.
    """
    with path.open("wb") as file:
        async for chunk in request.stream():
            file.write(chunk)


async def _measured(ctx: Context, dataset: str, items: list[Item]) -> Measured:
    records = [PromptRecord(tuple(item.messages), None, "") for item in items]
    async with ctx.store.transaction() as session:
        found = await overlap.overlap(session, dataset, records)
        version = await versions.serving(session)
    texts = [[*(m["content"] for m in item.messages), *item.answers] for item in items]
    counts = await token_lengths.lengths(ctx.settings, version, [t for of in texts for t in of])
    plain = inspection.in_characters(items)
    if counts is None:
        unit, lengths, version = plain.unit, plain.lengths, None
    else:
        unit, lengths = "tokens", _regrouped(items, iter(counts))
    return Measured(
        unit=unit,
        version=version,
        context=await token_lengths.context(ctx.settings),
        lengths=lengths,
        known=found.num_known,
        elsewhere=found.others,
        held_out=found.num_held_out,
    )


def _regrouped(items: list[Item], counts: Iterator[int]) -> list[tuple[int, list[int]]]:
    """The flat counts of turns and answers, back under their prompts."""
    return [
        (sum(next(counts) for _ in item.messages), [next(counts) for _ in item.answers])
        for item in items
    ]
