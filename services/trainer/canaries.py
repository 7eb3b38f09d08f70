"""Canaries: what the published files must say, computed by transformers in bf16.

Each canary is a prompt, the model's own greedy continuation, and the
log-probability (nats) of each continuation token. The engine is asked for the
same tokens after a swap. They are computed from the files as published, in the
engine's dtype: float32 and bf16 forwards differ by more than a small update.
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
    canaries = [_canary(model, tokenizer, prompt) for prompt in PROMPTS]
    document = {"dtype": "bfloat16", "canaries": canaries}
    (folder / checkpoints.CANARIES).write_text(json.dumps(document))


def _canary(model: Any, tokenizer: Any, prompt: str) -> dict[str, Any]:
    prompt_ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=True
    )["input_ids"]
    with torch.inference_mode():
        whole = model.generate(
            torch.tensor([prompt_ids]), do_sample=False, max_new_tokens=NUM_TOKENS
        )[0].tolist()
    continuation = whole[len(prompt_ids) :]
    return {
        "prompt_token_ids": prompt_ids,
        "continuation_token_ids": continuation,
        "logprobs": continuation_logprobs(model, prompt_ids, continuation),
    }


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
