"""Canaries: what the published files must say, computed by transformers in bf16.

Each canary is a prompt, a greedy continuation by the model itself, and the
log-probability (nats) of each continuation token. The engine is asked for the
same tokens after a swap. They are computed from the files as published, in the
engine's dtype: float32 and bf16 forwards differ by more than a small update. How much they
differ is written beside the canaries: it is the size of what rounding alone does to this
checkpoint, and grows as training sharpens it.
"""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewardloop import checkpoints

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


def write_canaries(folder: Path) -> None:
    """Compute the canaries of the checkpoint in `folder` and write them beside it."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
        )
        for prompt in PROMPTS
    ]
    canaries = [
        {
            "prompt_token_ids": prompt_ids,
            "continuation_token_ids": continuation,
            "logprobs": continuation_logprobs(model, prompt_ids, continuation),
        }
        for prompt_ids, continuation in _continuations(model, tokenizer, texts)
    ]
    document = {
        "dtype": "bfloat16",
        "rounding_nats": _rounding_nats(folder, canaries),
        "canaries": canaries,
    }
    (folder / checkpoints.CANARIES).write_text(json.dumps(document))


def _rounding_nats(folder: Path, canaries: list[dict[str, Any]]) -> float:
    """Mean |bf16 - float32| of the canaries' log-probabilities."""
    exact = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
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


def _continuations(
    model: Any, tokenizer: Any, texts: list[str]
) -> list[tuple[list[int], list[int]]]:
    """Token ids of each prompt and of its greedy continuation, generated as one batch."""
    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    with torch.inference_mode():
        whole_BT = model.generate(**batch, do_sample=False, max_new_tokens=NUM_TOKENS)
    width = batch["input_ids"].shape[1]
    found = []
    for row, mask in zip(whole_BT, batch["attention_mask"], strict=True):
        prompt_ids = row[:width][mask.bool()].tolist()
        found.append((prompt_ids, _until(row[width:].tolist(), tokenizer.eos_token_id)))
    return found


def _until(tokens: list[int], end: int) -> list[int]:
    """The tokens up to the first `end`, and with it; what a batch pads behind it goes."""
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens


def continuation_logprobs(
    model: Any, prompt_ids: list[int], continuation_ids: list[int]
) -> list[float]:
    """log p(continuation_t | prompt, continuation_<t), in nats, from one forward pass.

    The softmax is taken in float32 over logits in the model's dtype.
    """
    with torch.inference_mode():
        logits_TV = model(torch.tensor([prompt_ids + continuation_ids])).logits[0]
    logps_TV = torch.log_softmax(logits_TV.float(), dim=-1)
    first = len(prompt_ids) - 1
    rows = range(first, first + len(continuation_ids))
    return [float(logps_TV[row, token]) for row, token in zip(rows, continuation_ids, strict=True)]
