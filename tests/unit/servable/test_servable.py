"""Whether a checkpoint's files are a model that may be served, and what is not one's business."""

from pathlib import Path
from typing import Any

import pytest

from rewardloop.errors import CheckpointInvalid, SwapFailed
from rewardloop.servable import read_form, require_model, require_servable
from tests.security import small_checkpoint as small


def made(tmp_path: Path, name: str = "m1", seed: int = 1, **changed: Any) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    small.write(folder, seed, **changed)
    return folder


def test_another_models_weights_are_all_that_may_differ(tmp_path: Path) -> None:
    served = read_form(made(tmp_path, "m0", seed=0))
    assert require_servable(made(tmp_path), served).version == "m1"


@pytest.mark.parametrize(
    "config",
    [
        # Where a library writes its defaults out, and names itself.
        {**small.CONFIG, "hidden_act": "silu", "attention_bias": False, "head_dim": 2},
        {**small.CONFIG, "transformers_version": "9", "use_cache": False, "torch_dtype": "x"},
        {**small.CONFIG, "attention_dropout": 0.1, "initializer_range": 0.5, "eos_token_id": 3},
    ],
)
def test_a_config_that_says_the_same_in_other_words_is_the_same(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    served = read_form(made(tmp_path, "m0", seed=0))
    require_servable(made(tmp_path, **{"config.json": config}), served)


def test_the_library_may_name_the_tokenizers_class_otherwise(tmp_path: Path) -> None:
    served = read_form(made(tmp_path, "m0", seed=0))
    settings = {**small.TOKENIZER_CONFIG, "tokenizer_class": "GPT2Tokenizer"}
    require_servable(made(tmp_path, **{"tokenizer_config.json": settings}), served)


def test_a_token_may_be_called_as_a_key_that_names_code(tmp_path: Path) -> None:
    vocab = {"type": "BPE", "vocab": {"auto_map": 0, "trust_remote_code": 1}}
    require_servable(made(tmp_path, **{"tokenizer.json": {**small.TOKENIZER, "model": vocab}}))


@pytest.mark.parametrize(
    "changed",
    [
        {"architectures": ["EvilForCausalLM"]},
        {"architectures": ["LlamaForCausalLM", "EvilForCausalLM"]},
        {"architectures": ["MistralForCausalLM"]},
        {"architectures": []},
        {"architectures": "LlamaForCausalLM"},
        {"model_type": "evil"},
        {"model_type": ["llama"]},
        {"model_type": "clip"},
    ],
)
def test_a_first_version_is_a_language_model_that_transformers_ships(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    folder = made(tmp_path, **{"config.json": {**small.CONFIG, **changed}})
    with pytest.raises(CheckpointInvalid, match="no language model that transformers ships"):
        require_servable(folder)


def test_a_first_version_has_a_tokenizer_that_transformers_ships(tmp_path: Path) -> None:
    folder = made(tmp_path, **{"tokenizer_config.json": {"tokenizer_class": "EvilTokenizer"}})
    with pytest.raises(CheckpointInvalid, match="tokenizer class 'EvilTokenizer'"):
        require_servable(folder)


def test_a_known_first_version_is_served(tmp_path: Path) -> None:
    require_servable(made(tmp_path))


@pytest.mark.parametrize("config", [None, {}, {"model_type": ""}])
def test_what_is_no_model_is_served_by_the_stub_alone(tmp_path: Path, config: Any) -> None:
    nothing = made(tmp_path, "stub", **{"config.json": config, "model.safetensors": b"anything"})
    another = made(tmp_path, "stub2", **{"config.json": config, "model.safetensors": b"else"})
    require_servable(another, read_form(nothing))
    with pytest.raises(CheckpointInvalid, match=r"config\.json is missing or has no model_type"):
        require_model(nothing)
    with pytest.raises(CheckpointInvalid, match=r"checkpoint stub: config\.json is missing"):
        require_servable(nothing, read_form(made(tmp_path, "m0")))


def test_publishing_compares_with_the_parent(tmp_path: Path) -> None:
    small.publish(tmp_path, "m0", seed=0)
    small.publish(tmp_path, "m1", seed=1, parent="m0")
    with pytest.raises(SwapFailed, match="m2 differs from m1 in its chat template"):
        small.publish(tmp_path, "m2", seed=2, parent="m1", **{"chat_template.jinja": "{{ x }}"})
    tensors = small.tensors(3)
    tensors["model.norm.weight"][0] = float("nan")
    diverged = small.save(tensors, {"format": "pt"})
    with pytest.raises(CheckpointInvalid, match=r"checkpoint m2: the tensor model\.norm\.weight"):
        small.publish(tmp_path, "m2", seed=2, parent="m1", **{"model.safetensors": diverged})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m0", "m1"]


def test_a_parent_that_was_deleted_to_make_room_is_not_missed(tmp_path: Path) -> None:
    small.publish(tmp_path, "m2", seed=2, parent="gone")
