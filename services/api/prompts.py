"""`/v1/datasets`: prompt datasets."""

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from rewardloop.errors import InvalidInput
from rewardloop.records import Message, PromptRecord
from rewardloop.store import prompts
from services.api.context import Ctx

router = APIRouter(tags=["datasets"])


class NewPrompt(BaseModel):
    model_config = ConfigDict(extra="forbid")
    messages: list[Message] = Field(min_length=1, max_length=100)
    reference: str | None = None
    source: str = Field(default="api", max_length=500)


class NewPrompts(BaseModel):
    model_config = ConfigDict(extra="forbid")
    prompts: list[NewPrompt] = Field(min_length=1, max_length=10_000)


class PromptsAdded(BaseModel):
    added: int
    known: int
    """Prompts that the dataset held already."""


@router.post("/datasets/{dataset}/prompts", status_code=201)
async def add_prompts(
    ctx: Ctx,
    dataset: Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")],
    request: NewPrompts,
) -> PromptsAdded:
    """Add prompts to a dataset, all or none."""
    for number, prompt in enumerate(request.prompts, start=1):
        if prompt.messages[-1]["role"] != "user":
            raise InvalidInput(
                f"prompt {number} must end in a user's turn, for the model to answer"
            )
        texts = [m["content"] for m in prompt.messages] + [prompt.reference or "", prompt.source]
        if any("\x00" in text for text in texts):
            raise InvalidInput(f"prompt {number} holds a NUL character; remove it")
    records = [PromptRecord(tuple(p.messages), p.reference, p.source) for p in request.prompts]
    async with ctx.store.transaction() as session:
        added = await prompts.add(session, dataset, records)
    return PromptsAdded(added=added, known=len(records) - added)


@router.get("/datasets")
async def list_datasets(ctx: Ctx) -> dict[str, int]:
    """Number of prompts in each dataset."""
    async with ctx.store.transaction() as session:
        return await prompts.datasets(session)
