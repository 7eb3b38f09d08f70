"""`/v1/datasets`: prompts and rankings that are pushed, and how many there are."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from rewardloop.datasets.admission import Admission
from rewardloop.errors import InvalidInput
from rewardloop.records import Message, PromptRecord, RankedText
from rewardloop.store import overlap, prompts, rankings
from services.api.context import Ctx, DatasetName

router = APIRouter(tags=["datasets"])


class NewPrompt(BaseModel):
    model_config = ConfigDict(extra="forbid")
    messages: list[Message]
    reference: str | None = None
    source: str = "api"


class NewPrompts(BaseModel):
    model_config = ConfigDict(extra="forbid")
    prompts: list[NewPrompt] = Field(min_length=1, max_length=10_000)


class NewRankedText(BaseModel):
    model_config = ConfigDict(extra="forbid")
    text: str
    rank: int = Field(ge=0, le=2**31 - 1, strict=True)
    """0 is the best; equal ranks are a human tie."""
    imitate: bool = Field(default=True, strict=True)
    """False where humans called it bad: IFT does not learn it, even if it is the best."""


class NewRankedPrompt(NewPrompt):
    responses: list[NewRankedText]


class NewRankedPrompts(BaseModel):
    model_config = ConfigDict(extra="forbid")
    prompts: list[NewRankedPrompt] = Field(min_length=1, max_length=10_000)


class LeftOutView(BaseModel):
    count: int
    first: str
    """A place in the request, such as `prompts.3`."""
    detail: str


class PromptsAdded(BaseModel):
    added: int
    known: int
    """Prompts that the dataset held already."""
    references_added: int
    """Known prompts that had no reference, and got one."""
    references_kept: int
    """Prompts that came with another reference than the stored one, which stays."""
    left_out: dict[str, LeftOutView]
    """What was not stored, by reason."""
    elsewhere: dict[str, int]
    """Prompts of the request whose question stands in another dataset, by its name."""
    held_out: int
    """Prompts of the request whose question some run holds out."""


class RankedAdded(PromptsAdded):
    added: int
    """New rankings."""
    extended: int
    """Known rankings that got more responses."""
    responses_added: int
    """To known rankings."""
    unplaced: dict[str, int]
    """Responses that could not join a known ranking, by reason."""


Strict = Annotated[bool, Query()]


@router.post("/datasets/{dataset}/prompts", status_code=201)
async def add_prompts(
    ctx: Ctx, dataset: DatasetName, request: NewPrompts, strict: Strict = False
) -> PromptsAdded:
    """Add prompts to a dataset, in one transaction.

    A prompt that cannot be trained on is left out and counted; with `strict`, or where none is
    left, the request is refused and nothing is stored.
    """
    admission = Admission()
    records = _records(admission, request.prompts)
    _check(admission, strict=strict, num_left=len(records))
    async with ctx.store.transaction() as session:
        added = await prompts.add(session, dataset, records)
        found = await overlap.overlap(session, dataset, records)
    return PromptsAdded(
        added=added.num_new,
        known=added.num_known,
        references_added=added.num_references_added,
        references_kept=added.num_references_kept,
        left_out=_views(admission),
        elsewhere=found.others,
        held_out=found.num_held_out,
    )


@router.post("/datasets/{dataset}/ranked", status_code=201)
async def add_ranked(
    ctx: Ctx, dataset: DatasetName, request: NewRankedPrompts, strict: Strict = False
) -> RankedAdded:
    """Add prompts with human-ranked responses, in one transaction; `added` counts new rankings.

    Responses and prompts that files would leave out are left out here too, and counted; with
    `strict`, or where none is left, the request is refused and nothing is stored.
    """
    admission = Admission()
    found_rankings = [
        admission.ranking(
            number,
            prompt.messages,
            prompt.reference,
            prompt.source,
            [RankedText(r.text, r.rank, r.imitate) for r in prompt.responses],
        )
        for number, prompt in enumerate(request.prompts)
    ]
    ranked = [ranking for ranking in found_rankings if ranking is not None]
    _check(admission, strict=strict, num_left=len(ranked))
    async with ctx.store.transaction() as session:
        added = await rankings.add(session, dataset, ranked)
        found = await overlap.overlap(session, dataset, [ranking.prompt for ranking in ranked])
    return RankedAdded(
        added=added.num_new,
        known=len(ranked) - added.num_new,
        extended=added.num_extended,
        responses_added=added.num_responses_added,
        unplaced=added.left_out,
        references_added=added.prompts.num_references_added,
        references_kept=added.prompts.num_references_kept,
        left_out=_views(admission),
        elsewhere=found.others,
        held_out=found.num_held_out,
    )


def _records(admission: Admission, given: Sequence[NewPrompt]) -> list[PromptRecord]:
    found = [
        admission.prompt(number, prompt.messages, prompt.reference, prompt.source)
        for number, prompt in enumerate(given)
    ]
    return [record for record in found if record is not None]


def _check(admission: Admission, *, strict: bool, num_left: int) -> None:
    """
    Raises:
        InvalidInput: nothing is left to store, or something was left out of a strict request.
    """
    if not num_left:
        raise InvalidInput(f"nothing of the request can be stored; left out: {admission.told()}")
    if strict and not admission.is_whole:
        raise InvalidInput(
            f"nothing was stored, since the request is strict and holds {admission.told()}; "
            "correct it, or leave strict out to store the rest"
        )


def _views(admission: Admission) -> dict[str, LeftOutView]:
    return {
        reason: LeftOutView(count=found.count, first=found.first, detail=found.detail)
        for reason, found in admission.left_out.items()
    }


@router.get("/datasets")
async def list_datasets(ctx: Ctx) -> dict[str, int]:
    """Number of prompts in each dataset."""
    async with ctx.store.transaction() as session:
        return await prompts.datasets(session)
