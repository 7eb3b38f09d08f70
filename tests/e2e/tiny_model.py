"""A model of two small layers with random weights, a tokenizer of single bytes, and the
log-probabilities that they give a response, computed by hand."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_tiny_model(folder: Path) -> Path:
    """A checkpoint in float32 with ChatML. As in SmolLM2, its padding is its end token."""
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        # Large enough that the most likely token depends on what stands before it.
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def byte_tokenizer() -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=CHATML,
    )


def user(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]


def as_prompt(content: str) -> str:
    """What the model is shown of one user message, written out."""
    return f"<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n"


def response_logprobs(model: Any, content: str, response: str) -> torch.Tensor:
    """log p of each token of the response and of its end, given the prompt: no batch, no pad."""
    tokenizer = byte_tokenizer()
    prompt_ids = tokenizer(as_prompt(content))["input_ids"]
    response_ids = tokenizer(f"{response}<|im_end|>")["input_ids"]
    logits_TV = model(torch.tensor([prompt_ids + response_ids])).logits[0]
    logps_TV = torch.log_softmax(logits_TV, dim=-1)
    first = len(prompt_ids) - 1
    rows = range(first, first + len(response_ids))
    return torch.stack([logps_TV[row, t] for row, t in zip(rows, response_ids, strict=True)])


def in_float64(folder: Path) -> Any:
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float64)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: weight.grad.double() for name, weight in model.named_parameters()}


def worst_difference(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """The largest ||found - expected|| / ||expected|| over the tensors."""
    assert set(found) == set(expected)
    return max(float((found[n] - expected[n]).norm() / expected[n].norm()) for n in expected)
