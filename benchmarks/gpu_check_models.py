"""What the GPU check trains: models of random weights, and texts of realistic lengths.

Shapes are those of the published models, and a tiny one for the check's CPU form. The tokenizer
knows single bytes, so a text of n ASCII letters has n tokens; the model's vocabulary is the
published one, most of which no text uses. Random weights cost what trained ones cost.
"""

from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from services.trainer import placement
from services.trainer.template import CHATML_TEMPLATE

SHAPES: dict[str, dict[str, Any]] = {
    "8b": {  # Llama 3.1 8B
        "vocab_size": 128_256,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
    },
    "1b": {  # Llama 3.2 1B
        "vocab_size": 128_256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": True,
    },
    "small": {  # the least that vLLM's GPU kernels take
        "vocab_size": 512,
        "hidden_size": 512,
        "intermediate_size": 1024,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
    },
    "tiny": {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
}
MEDIAN_PROMPT = 120
MEDIAN_ANSWER = 350
SPREAD = 0.6
"""Standard deviation of a length's logarithm."""


def written_model(shape: str, folder: Path) -> Path:
    """A checkpoint of random weights in bf16, as published models are; made once."""
    target = folder / f"model-{shape}"
    if (target / "config.json").exists():
        return target
    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        **SHAPES[shape],
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="bfloat16",
    )
    torch.manual_seed(0)
    with torch.device(placement.device()):
        model = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16)
    tokenizer.save_pretrained(target)
    model.save_pretrained(target)
    return target


def byte_tokenizer() -> Any:
    """Bytes, ChatML's marks, and its template. Padding is a token of its own, as in Llama."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        special_tokens=["<|im_start|>", "<|im_end|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        chat_template=CHATML_TEMPLATE,
    )


@dataclass(frozen=True, slots=True)
class Lengths:
    """Log-normal, in tokens, with a longest row among the others: memory is the longest's."""

    max_length: int
    max_answer: int
    scale: float = 1.0

    def prompt(self, random: Random) -> int:
        return self._drawn(random, MEDIAN_PROMPT, self.longest_prompt)

    def answer(self, random: Random) -> int:
        return self._drawn(random, MEDIAN_ANSWER, self.max_answer)

    @property
    def longest_prompt(self) -> int:
        return self.max_length - self.max_answer

    def _drawn(self, random: Random, median: int, most: int) -> int:
        drawn = random.lognormvariate(0, SPREAD) * median * self.scale
        return max(4, min(most, round(drawn)))


def pairs(num: int, lengths: Lengths, seed: int = 0) -> list[dict[str, Any]]:
    """In TRL's preference format; the first fills `max_length` on both sides."""
    random = Random(seed)
    found = [_pair(random, lengths.longest_prompt, lengths.max_answer, lengths.max_answer)]
    for _ in range(num - 1):
        sizes = (lengths.prompt(random), lengths.answer(random), lengths.answer(random))
        found.append(_pair(random, *sizes))
    return found


def examples(num: int, lengths: Lengths, seed: int = 0) -> list[dict[str, Any]]:
    """As SFT is given them; the first fills `max_length`."""
    return [
        {"prompt": pair["prompt"], "completion": pair["chosen"][0]["content"], "kind": "ift"}
        for pair in pairs(num, lengths, seed)
    ]


def _pair(random: Random, prompt: int, chosen: int, rejected: int) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": _letters(random, prompt)}],
        "chosen": [{"role": "assistant", "content": _letters(random, chosen)}],
        "rejected": [{"role": "assistant", "content": _letters(random, rejected)}],
    }


def _letters(random: Random, num: int) -> str:
    return "".join(random.choices("abcdefghij klmnopqrst", k=num)).strip().ljust(num, "x")
