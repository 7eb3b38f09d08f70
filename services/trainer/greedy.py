"""Greedy answers of a model in this process, from token ids to token ids."""

from typing import Any

import torch

from services.trainer import template


def continuations(
    model: Any, tokenizer: Any, prompts: list[list[int]], max_tokens: int
) -> list[list[int]]:
    """Each prompt's most likely continuation, generated as one batch padded on the left.

    It goes to the first id that ends a text, and with it, or to `max_tokens`; what a batch
    pads behind that goes.
    """
    stops = template.stop_ids(model, tokenizer)
    width = max(map(len, prompts))
    padding = (
        tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(stops, default=0)
    )
    padded_BT = torch.tensor([[padding] * (width - len(p)) + p for p in prompts])
    mask_BT = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    with torch.no_grad():
        whole_BT = model.generate(
            padded_BT.to(model.device),
            attention_mask=mask_BT.to(model.device),
            do_sample=False,
            max_new_tokens=max_tokens,
            use_cache=True,
            pad_token_id=padding,
            eos_token_id=sorted(stops) or None,
        )
    return [until(row[width:].tolist(), stops) for row in whole_BT]


def until(tokens: list[int], ends: set[int]) -> list[int]:
    """The tokens up to the first of `ends`, and with it."""
    first = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[: first + 1]
