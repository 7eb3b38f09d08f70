"""A checkpoint of a few hundred bytes with every file that a real one has. Needs no torch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from rewardloop import checkpoints

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4,
    "intermediate_size": 8,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_hidden_layers": 1,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "vocab_size": 8,
    "dtype": "float32",
}
TOKENIZER = {
    "version": "1.0",
    "added_tokens": [{"id": 7, "content": "<|im_end|>"}],
    "model": {"type": "BPE", "vocab": {letter: id for id, letter in enumerate("abcdefg")}},
}
TOKENIZER_CONFIG = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
SHAPES: dict[str, tuple[int, ...]] = {
    "model.embed_tokens.weight": (8, 4),
    "model.layers.0.mlp.down_proj.weight": (4, 8),
    "model.layers.0.self_attn.q_proj.weight": (4, 4),
    "model.norm.weight": (4,),
}
CANARIES = [
    {"prompt_token_ids": [1, 2], "continuation_token_ids": [3, 4], "logprobs": [-1.0, -2.0]},
    {"prompt_token_ids": [2], "continuation_token_ids": [5, 1], "logprobs": [-0.5, -0.25]},
]
TEMPLATE = "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"


def tensors(seed: int) -> dict[str, Any]:
    chance = np.random.default_rng(seed)
    return {name: chance.random(shape, dtype=np.float32) for name, shape in SHAPES.items()}


def write(folder: Path, seed: int, **changed: Any) -> None:
    """Write the files; `changed` replaces a file's JSON, text or bytes, or leaves it out."""
    files: dict[str, Any] = {
        "config.json": CONFIG,
        "generation_config.json": {"eos_token_id": 7},
        "tokenizer.json": TOKENIZER,
        "tokenizer_config.json": TOKENIZER_CONFIG,
        "chat_template.jinja": TEMPLATE,
        "canaries.json": {"dtype": "bfloat16", "rounding_nats": 0.01, "canaries": CANARIES},
        "model.safetensors": save(tensors(seed), {"format": "pt"}),
        **changed,
    }
    for name, content in files.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        elif content is not None:
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / name).write_text(text)


def publish(
    root: Path, version: str, seed: int, parent: str | None = None, **changed: Any
) -> dict[str, Any]:
    def write_files(folder: Path) -> None:
        write(folder, seed, **changed)

    return checkpoints.publish(root, version, write_files, {"parent": parent})
