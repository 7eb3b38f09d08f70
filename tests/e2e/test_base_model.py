"""A base model on its way to a checkpoint: its chat template and where its turns end."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewardloop.config import Training
from services.trainer import base_model, dpo
from services.trainer.canaries import NUM_TOKENS, write_canaries
from tests.e2e.tiny_model import write_tiny_model

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def end_of_text_base(folder: Path) -> Path:
    """As Qwen2.5's base: turns end with <|im_end|>, everything that is configured says
    <|endoftext|>."""
    write_tiny_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"})
    tokenizer.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for config in (model.config, model.generation_config):
        config.eos_token_id = config.pad_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    return folder


def without_template(folder: Path) -> Path:
    write_tiny_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    return folder


def ends_of(folder: Path) -> list[str]:
    said: Any = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = said if isinstance(said, list) else [said]
    return sorted(tokenizer.convert_ids_to_tokens(ids))


def test_the_published_engine_stops_where_turns_end(tmp_path: Path) -> None:
    told = base_model._write(str(end_of_text_base(tmp_path / "base")), tmp_path / "out")
    assert ends_of(tmp_path / "out") == ["<|endoftext|>", "<|im_end|>"]
    assert len(told) == 1
    assert "generation_config.json now names it" in told[0]


def task_on(base: Path, tmp_path: Path, weights: dict[str, Any]) -> dict[str, Any]:
    values = {"batch_size": 1, "micro_batch_size": 1, "dropout": 0.0, "max_length": 64}
    config = Training(weights=weights, **values)  # type: ignore[arg-type]
    sides = {side: [{"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    return {
        "base": str(base),
        "output": str(tmp_path / "out"),
        "config": config.model_dump(mode="json"),
        "seed": 1,
        "pairs": [{"prompt": [{"role": "user", "content": "a"}], **sides}],
    }


def test_training_mends_a_version_that_was_published_before_the_checks(tmp_path: Path) -> None:
    base = end_of_text_base(tmp_path / "base")
    said = io.StringIO()
    dpo.train(task_on(base, tmp_path, {"kind": "full"}), said)
    assert "generation_config.json now names it" in said.getvalue()
    assert ends_of(base) == ["<|endoftext|>"]
    assert ends_of(tmp_path / "out") == ["<|endoftext|>", "<|im_end|>"]


def test_an_adapter_cannot_mend_its_base(tmp_path: Path) -> None:
    base = end_of_text_base(tmp_path / "base")
    task = task_on(base, tmp_path, {"kind": "lora", "rank": 4, "alpha": 8})
    with pytest.raises(ValueError, match=r"engine stops at .* import the base again"):
        dpo.train(task, io.StringIO())


def test_a_base_without_a_template_is_refused_or_given_one(tmp_path: Path) -> None:
    base = without_template(tmp_path / "base")
    with pytest.raises(ValueError, match="--chat-template chatml"):
        base_model._write(str(base), tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    assert base_model._write(str(base), tmp_path / "out", "chatml") == []
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    shown = tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    assert shown == "<|im_start|>user\na<|im_end|>\n"


def test_canaries_end_at_any_end(tmp_path: Path) -> None:
    """Whatever the model says first ends its texts from now on, beside the tokenizer's end."""
    write_tiny_model(tmp_path)
    write_canaries(tmp_path)
    canaries = json.loads((tmp_path / "canaries.json").read_text())["canaries"]
    place, number = 3, 0
    end = canaries[number]["continuation_token_ids"][place]
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    model.generation_config.eos_token_id = [model.generation_config.eos_token_id, end]
    model.save_pretrained(tmp_path)
    write_canaries(tmp_path)
    ended = json.loads((tmp_path / "canaries.json").read_text())["canaries"]
    assert {len(one["continuation_token_ids"]) for one in canaries} == {NUM_TOKENS}
    for before, after in zip(canaries, ended, strict=True):
        ids = before["continuation_token_ids"]
        expected = ids[: ids.index(end) + 1] if end in ids else ids
        assert after["continuation_token_ids"] == expected
        assert len(after["logprobs"]) == len(expected)
    assert len(ended[number]["continuation_token_ids"]) <= place + 1


def test_a_base_whose_weights_are_not_numbers_is_refused(tmp_path: Path) -> None:
    base = write_tiny_model(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        model.model.norm.weight[0] = torch.inf
    model.save_pretrained(base)
    with pytest.raises(ValueError, match=r"model\.norm\.weight has values that are not finite"):
        base_model._write(str(base), tmp_path / "out")
    assert not (tmp_path / "out" / "model.safetensors").exists()
