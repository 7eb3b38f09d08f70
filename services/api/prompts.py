"""`/v1/datasets`: prompt datasets."""

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from rewardloop.datasets.conversation import prompt_record
from rewardloop.datasets.names import DATASET_NAME
from rewardloop.errors import InvalidInput
from rewardloop.records import (
    MAX_RANKED_RESPONSES,
    Message,
    PromptRecord,
    RankedPrompt,
    RankedText,
)
from rewardloop.store import prompts, rankings
from services.api.context import Ctx, Storable

router = APIRouter(tags=["datasets"])


class NewPrompt(BaseModel):
    model_config = ConfigDict(extra="forbid")
    messages: list[Message] = Field(min_length=1, max_length=100)
    reference: str | None = None
    source: str = Field(default="api", max_length=500)


class NewPrompts(BaseModel):
    model_config = ConfigDict(extra="forbid")
    prompts: list[NewPrompt] = Field(min_length=1, max_length=10_000)


class NewRankedText(BaseModel):
    model_config = ConfigDict(extra="forbid")
    text: Storable = Field(min_length=1)
    rank: int = Field(ge=0)
    """0 is the best; equal ranks are a human tie."""


class NewRankedPrompt(NewPrompt):
    responses: list[NewRankedText] = Field(min_length=2, max_length=MAX_RANKED_RESPONSES)


class NewRankedPrompts(BaseModel):
    model_config = ConfigDict(extra="forbid")
    prompts: list[NewRankedPrompt] = Field(min_length=1, max_length=10_000)


class PromptsAdded(BaseModel):
    added: int
    known: int
    """Prompts that the dataset held already."""


DatasetName = Annotated[str, Path(pattern=DATASET_NAME)]


def _record(number: int, prompt: NewPrompt) -> PromptRecord:
    """
    Raises:
        InvalidInput: it does not end in a user's turn, is blank, or a text cannot be stored.
    """
    try:
        return prompt_record(prompt.messages, prompt.reference, prompt.source)
    except ValueError as error:
        raise InvalidInput(f"prompt {number}: {error}") from error


@router.post("/datasets/{dataset}/prompts", status_code=201)
async def add_prompts(ctx: Ctx, dataset: DatasetName, request: NewPrompts) -> PromptsAdded:
    """Add prompts to a dataset, all or none."""
    records = [_record(number, prompt) for number, prompt in enumerate(request.prompts, start=1)]
    async with ctx.store.transaction() as session:
        added = await prompts.add(session, dataset, records)
    return PromptsAdded(added=added.num_new, known=added.num_known)


@router.post("/datasets/{dataset}/ranked", status_code=201)
async def add_ranked(ctx: Ctx, dataset: DatasetName, request: NewRankedPrompts) -> PromptsAdded:
    """Add prompts with human-ranked responses, all or none; `added` counts new rankings."""
    records = [
        RankedPrompt(
            _record(number, prompt),
            tuple(RankedText(r.text, r.rank) for r in prompt.responses),
        )
        for number, prompt in enumerate(request.prompts, start=1)
    ]
    async with ctx.store.transaction() as session:
        added = await rankings.add(session, dataset, records)
    return PromptsAdded(added=added.num_new, known=len(records) - added.num_new)


@router.get("/datasets")
async def list_datasets(ctx: Ctx) -> dict[str, int]:
    """Number of prompts in each dataset."""
    async with ctx.store.transaction() as session:
        return await prompts.datasets(session)
