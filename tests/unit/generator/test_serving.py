"""What vLLM is started with for adapters."""

from pathlib import Path

import pytest

from services.generator import serving
from services.generator.serving import VLLM_RANKS, options
from tests.security import small_checkpoint


@pytest.fixture
def base(tmp_path: Path) -> Path:
    small_checkpoint.write(tmp_path, seed=0)
    return tmp_path


def settings(**given: object) -> serving.Settings:
    return serving.Settings.model_construct(max_adapters=3, max_adapter_rank=24, **given)


def test_an_engine_that_merges_is_started_as_ever(base: Path) -> None:
    assert options(settings(adapters="merge"), base) == []


def test_an_engine_has_room_for_as_many_adapters_as_are_ever_loaded(base: Path) -> None:
    found = options(settings(adapters="serve"), base)
    told = dict(zip(found[1:7:2], found[2:7:2], strict=True))
    assert found[0] == "--enable-lora"
    assert told == {"--max-lora-rank": "32", "--max-loras": "3", "--max-cpu-loras": "3"}
    assert 24 not in VLLM_RANKS


def test_neither_embedding_nor_head_carries_an_adapter(base: Path) -> None:
    found = options(settings(adapters="serve"), base)
    assert found[found.index("--lora-target-modules") + 1 :] == ["down_proj", "q_proj"]


@pytest.mark.parametrize(("gpu", "serves"), [(True, True), (False, False)])
def test_where_nothing_is_said_the_machine_decides(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, serves: bool
) -> None:
    monkeypatch.setattr(serving, "has_gpu", lambda: gpu)
    assert serving.serves_adapters(settings(adapters=None)) is serves
