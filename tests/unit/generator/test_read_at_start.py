"""A version that differs in what vLLM reads once is refused before anything is touched."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rewardloop.errors import CheckpointInvalid, SwapFailed
from services.generator.read_at_start import read_at_start, require_same

TOKENIZER = {"version": "1.0", "padding": None, "model": {"vocab": {"a": 0}}, "added_tokens": []}
FILES: dict[str, Any] = {
    "generation_config.json": {"eos_token_id": 2, "use_cache": True},
    "tokenizer_config.json": {"eos_token": "<|im_end|>", "chat_template": "T", "pad_token": "p"},
    "tokenizer.json": TOKENIZER,
}


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes a checkpoint's folder: FILES with some of them changed or left out (None)."""

    def write(name: str, **changed: Any) -> Path:
        made = tmp_path / name
        made.mkdir()
        for file, content in {**FILES, **changed}.items():
            if content is not None:
                text = content if isinstance(content, str) else json.dumps(content)
                (made / file).write_text(text)
        return made

    return write


def config(**changed: Any) -> dict[str, Any]:
    return {**FILES["tokenizer_config.json"], **changed}


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"generation_config.json": {"eos_token_id": [2], "temperature": 0.6}},
        {"tokenizer_config.json": config(pad_token="other", padding_side="left")},
        {"tokenizer_config.json": config(eos_token={"content": "<|im_end|>", "lstrip": False})},
        {"tokenizer_config.json": config(chat_template=None), "chat_template.jinja": "T"},
        {
            "tokenizer_config.json": config(chat_template=None),
            "chat_template.json": {"chat_template": "T"},
        },
        {"tokenizer.json": {**TOKENIZER, "padding": {"length": 8}, "truncation": {}}},
        {"config.json": {"eos_token_id": 7}},
    ],
)
def test_what_changes_no_token_is_the_same(
    folder: Callable[..., Path], changed: dict[str, Any]
) -> None:
    started, new = read_at_start(folder("m0")), read_at_start(folder("m1", **changed))
    assert started == new
    require_same(started, "m0", new, "m1")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"generation_config.json": {"eos_token_id": [2, 7]}}, r"stop ids \(\[2, 7\], not \[2\]\)"),
        ({"generation_config.json": {"eos_token_id": 7}}, r"stop ids \(\[7\], not \[2\]\)"),
        ({"generation_config.json": None}, r"stop ids \(\[\], not \[2\]\)"),
        ({"tokenizer_config.json": config(eos_token="</s>")}, "special tokens"),
        ({"tokenizer_config.json": config(chat_template="U")}, "chat template"),
        ({"chat_template.jinja": "U"}, "chat template"),
        ({"tokenizer.json": {**TOKENIZER, "added_tokens": [{"id": 9}]}}, "tokenizer"),
        ({"tokenizer.model": "pieces"}, "tokenizer"),
        (
            {"chat_template.jinja": "U", "generation_config.json": {}},
            r"stop ids, chat template \(\[\]",
        ),
    ],
)
def test_what_changes_tokens_is_refused_by_name(
    folder: Callable[..., Path], changed: dict[str, Any], told: str
) -> None:
    started, new = read_at_start(folder("m0")), read_at_start(folder("m1", **changed))
    with pytest.raises(SwapFailed, match=f"m1 differs from m0 in its {told}"):
        require_same(started, "m0", new, "m1")


def test_a_folder_without_these_files_has_none(tmp_path: Path) -> None:
    found = read_at_start(tmp_path)
    assert (found.stop_ids, found.chat_template) == (frozenset(), "null")


@pytest.mark.parametrize("text", ["{", "\x00"])
def test_a_file_that_is_no_json_is_named(folder: Callable[..., Path], text: str) -> None:
    made = folder("m1", **{"generation_config.json": text})
    with pytest.raises(CheckpointInvalid, match=r"m1: generation_config.json is no JSON"):
        read_at_start(made)
