"""A version that differs in what vLLM reads once is refused before anything is touched."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rewardloop.errors import CheckpointInvalid, SwapFailed
from rewardloop.servable.at_start import read_at_start, require_same

END = {"id": 3, "content": "<|im_end|>"}
TOKENIZER = {"version": "1.0", "padding": None, "model": {"vocab": {"a": 0}}, "added_tokens": [END]}
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
        # The tokenizer's own end stops vLLM anyway; transformers' trainer adds it.
        {"generation_config.json": {"eos_token_id": [3, 2]}},
        {"generation_config.json": None, "config.json": {"eos_token_id": 2}},
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
        ({"generation_config.json": {"eos_token_id": 7}}, r"stop ids \(\[2\] would still end"),
        ({"generation_config.json": None}, r"stop ids \(\[2\] would still end"),
        (
            {"tokenizer_config.json": config(eos_token="</s>")},
            r"stop ids, special tokens \(\[3\] would",
        ),
        ({"tokenizer_config.json": config(chat_template="U")}, "chat template"),
        ({"chat_template.jinja": "U"}, "chat template"),
        ({"tokenizer.json": {**TOKENIZER, "added_tokens": [END, {"id": 9}]}}, "tokenizer"),
        ({"tokenizer.model": "pieces"}, "tokenizer"),
        (
            {"chat_template.jinja": "U", "generation_config.json": {}},
            r"stop ids, chat template \(\[2\] would",
        ),
    ],
)
def test_what_changes_tokens_is_refused_by_name(
    folder: Callable[..., Path], changed: dict[str, Any], told: str
) -> None:
    started, new = read_at_start(folder("m0")), read_at_start(folder("m1", **changed))
    with pytest.raises(SwapFailed, match=f"m1 differs from m0 in its {told}"):
        require_same(started, "m0", new, "m1")


def test_a_version_may_end_its_answers_at_more_ids(folder: Callable[..., Path]) -> None:
    """As one that was trained after its base's end of turn was found missing."""
    started = read_at_start(folder("m0"))
    new = read_at_start(folder("m1", **{"generation_config.json": {"eos_token_id": [2, 7]}}))
    assert (started.stop_ids, new.stop_ids) == ({2, 3}, {2, 3, 7})
    require_same(started, "m0", new, "m1")


def test_a_folder_without_these_files_has_none(tmp_path: Path) -> None:
    found = read_at_start(tmp_path)
    assert (found.stop_ids, found.chat_template) == (frozenset(), "null")


@pytest.mark.parametrize("text", ["{", "\x00"])
def test_a_file_that_is_no_json_is_named(folder: Callable[..., Path], text: str) -> None:
    made = folder("m1", **{"generation_config.json": text})
    with pytest.raises(CheckpointInvalid, match=r"m1: generation_config.json is no JSON"):
        read_at_start(made)
