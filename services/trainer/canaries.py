"""Canaries: what the published files must say, computed by transformers in bf16.

Each canary is a prompt, a greedy continuation by the model itself, and the
log-probability (nats) of each continuation token. The engine is asked for the
same tokens after a swap. They are computed from the files as published, in the
engine's dtype: float32 and bf16 forwards differ by more than a small update. How much they
differ is written beside the canaries: it is the size of what rounding alone does to this
checkpoint, and grows as training sharpens it. Of an adapter they are those of base and adapter
merged, rounded to the engine's dtype once: an engine that serves the adapter beside its base
rounds elsewhere, and is held to the same bound. Where there is a GPU, it computes them, as it
does in the engine.
"""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewardloop import checkpoints
from rewardloop.chat_tokens import prompt_ids
from rewardloop.merging import merge_into
from services.trainer import placement
from services.trainer.greedy import continuations

PROMPTS = (
    "Name three uses for a paper clip.",
    "Why is the sky blue?",
    "Write a short poem about the sea.",
    "How do I boil an egg?",
    "Explain recursion to a child.",
    "What should I pack for a winter hike?",
    "Translate 'good morning' into French.",
    "Give me advice on learning the piano.",
)
NUM_TOKENS = 24


def write_canaries(folder: Path, base: Path | None = None) -> None:
    """Compute the canaries of the checkpoint in `folder` and write them beside it; `base` is the
    folder of full weights where it is an adapter."""
    model = _load(folder, base, torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(base or folder)
    prompts = [prompt_ids(tokenizer, [{"role": "user", "content": text}]) for text in PROMPTS]
    found = continuations(model, tokenizer, prompts, NUM_TOKENS)
    canaries = [
        {
            "prompt_token_ids": prompt,
            "continuation_token_ids": continuation,
            "logprobs": continuation_logprobs(model, prompt, continuation),
        }
        for prompt, continuation in zip(prompts, found, strict=True)
    ]
    del model  # a GPU may have no room for it beside the other
    document = {
        "dtype": "bfloat16",
        "rounding_nats": _rounding_nats(folder, base, canaries),
        "canaries": canaries,
    }
    (folder / checkpoints.CANARIES).write_text(json.dumps(document))


def _load(folder: Path, base: Path | None, dtype: torch.dtype) -> Any:
    placement.take_any_length()
    model = AutoModelForCausalLM.from_pretrained(
        base or folder, dtype=dtype, device_map=placement.device_map()
    )
    if base is not None:
        merge_into(model, base, folder)
    return model.eval()


def _rounding_nats(folder: Path, base: Path | None, canaries: list[dict[str, Any]]) -> float:
    """Mean |bf16 - float32| of the canaries' log-probabilities."""
    exact = _load(folder, base, torch.float32)
    differences: list[float] = [
        abs(precise - rounded)
        for canary in canaries
        for precise, rounded in zip(
            continuation_logprobs(
                exact, canary["prompt_token_ids"], canary["continuation_token_ids"]
            ),
            canary["logprobs"],
            strict=True,
        )
    ]
    return sum(differences) / len(differences)


def continuation_logprobs(
    model: Any, prompt_ids: list[int], continuation_ids: list[int]
) -> list[float]:
    """log p(continuation_t | prompt, continuation_<t), in nats, from one forward pass.

    The softmax is taken in float32 over logits in the model's dtype.
    """
    with torch.inference_mode():
        tokens_BT = torch.tensor([prompt_ids + continuation_ids], device=model.device)
        logits_TV = model(tokens_BT).logits[0]
    logps_TV = torch.log_softmax(logits_TV.float(), dim=-1)
    first = len(prompt_ids) - 1
    rows = range(first, first + len(continuation_ids))
    return [float(logps_TV[row, token]) for row, token in zip(rows, continuation_ids, strict=True)]
