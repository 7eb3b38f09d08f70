from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rewardloop.chat_checks import check_template
from rewardloop.chat_tokens import prompt_ids
from services.trainer import template
from tests.unit.small_tokenizers import CHATML, FAMILIES, base_without_template


class Model:
    """What the room asks of a model: how many embeddings it has, and where generation ends."""

    def __init__(self, num_embeddings: int, eos_token_id: Any) -> None:
        self.num_embeddings = num_embeddings
        self.generation_config = SimpleNamespace(eos_token_id=eos_token_id)

    def get_input_embeddings(self) -> "Model":
        return self

    def resize_token_embeddings(self, num: int) -> None:
        self.num_embeddings = num


@pytest.mark.parametrize(
    ("named", "expected"), [(None, {280}), (7, {7, 280}), ([7, 8], {7, 8, 280}), ([280], {280})]
)
def test_an_engine_stops_at_every_named_id_and_at_the_tokenizers_end(
    named: Any, expected: set[int]
) -> None:
    assert template.stop_ids(Model(300, named), FAMILIES["chatml"]()) == expected


@pytest.mark.parametrize("named", [None, 279, [279]])
def test_an_end_at_which_nothing_stops_is_mended(named: Any) -> None:
    tokenizer = FAMILIES["qwen_base"]()
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model = Model(300, named)
    (told,) = template.check_and_mend(model, tokenizer)
    assert "<|im_end|>" in told
    assert "generation_config.json now names it" in told
    assert model.generation_config.eos_token_id == [tokenizer.eos_token_id, end]
    assert template.check_and_mend(model, tokenizer) == []


def test_a_model_that_cannot_chat_is_refused() -> None:
    with pytest.raises(ValueError, match="--chat-template"):
        template.check_and_mend(Model(300, None), base_without_template())


def test_a_template_without_an_end_is_refused_at_import_and_told_in_training() -> None:
    tokenizer = FAMILIES["chatml"]()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    model = Model(300, None)
    with pytest.raises(ValueError, match="every answer would run to its limit"):
        template.check_and_mend(model, tokenizer)
    told = template.check_and_mend(model, tokenizer, template.FATAL_IN_TRAINING)
    assert "every answer would run to its limit" in told[0]


def test_chatml_is_given_with_its_marks_as_tokens() -> None:
    tokenizer = base_without_template()
    model = Model(len(tokenizer), tokenizer.eos_token_id)
    template.give(model, tokenizer, "chatml")
    assert model.num_embeddings == len(tokenizer)
    ids = prompt_ids(tokenizer, [{"role": "user", "content": "a"}])
    assert ids.count(tokenizer.convert_tokens_to_ids("<|im_start|>")) == 2
    assert len(template.check_and_mend(model, tokenizer)) == 1  # its end now stops the engine
    assert check_template(tokenizer, template.stop_ids(model, tokenizer)) == []


def test_chatml_keeps_marks_and_embeddings_that_are_there() -> None:
    tokenizer = FAMILIES["qwen_base"]()
    before = len(tokenizer)
    tokenizer.chat_template = None
    model = Model(before + 20, None)  # as models whose vocabulary is rounded up
    template.give(model, tokenizer, "chatml")
    assert (len(tokenizer), model.num_embeddings) == (before, before + 20)
    assert tokenizer.chat_template == template.CHATML_TEMPLATE


def test_a_file_is_given(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text(CHATML)
    tokenizer = FAMILIES["llama_3"]()
    template.give(Model(300, None), tokenizer, str(path))
    assert tokenizer.chat_template == CHATML
    with pytest.raises(ValueError, match="nor 'chatml'"):
        template.give(Model(300, None), tokenizer, "chatmll")


def test_a_models_own_template_stays() -> None:
    tokenizer = FAMILIES["llama_3"]()
    own = tokenizer.chat_template
    template.give(Model(300, None), tokenizer, None)
    assert tokenizer.chat_template == own
