"""Models whose answers tell which weights wrote each token. Needs torch and transformers.

After the token t of a text comes t + step, whatever stood before it: the layers add nothing to
the embedding, and the output head's row for t + step is the embedding of t. A token that other
weights wrote breaks the row.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rewardloop import checkpoints
from services.trainer.whole_model import save
from tests.e2e.tiny_model import byte_tokenizer

NUM_SPECIAL = 2
NUM_BYTES = 256
MAX_TOKENS = 8192


def publish(root: Path, version: str, step: int, parent: str | None = None) -> dict[str, Any]:
    """Publish the model of `step`; returns its manifest."""

    def write(folder: Path) -> None:
        save(_model(step), byte_tokenizer(), folder)

    return checkpoints.publish(root, version, write, {"parent": parent})


def after(token: int, step: int) -> int:
    """The byte token that follows `token`; control tokens are never written."""
    return NUM_SPECIAL + (token - NUM_SPECIAL + step) % NUM_BYTES


def steps_of(tokens: Sequence[int]) -> set[int]:
    """The steps between neighbouring tokens; one alone where one model wrote them all."""
    pairs = itertools.pairwise(tokens)
    return {(following - token) % NUM_BYTES for token, following in pairs}


def _model(step: int) -> Any:
    tokenizer = byte_tokenizer()
    torch.manual_seed(step)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=MAX_TOKENS,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    embedding_VH = torch.randn(len(tokenizer), config.hidden_size)
    head_VH = torch.zeros_like(embedding_VH)
    for token in range(NUM_SPECIAL, len(tokenizer)):
        head_VH[after(token, step)] = embedding_VH[token]
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(embedding_VH)
        model.lm_head.weight.copy_(head_VH)
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    return model
