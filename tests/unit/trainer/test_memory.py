"""How much goes through a forward pass, reckoned from memory."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from services.trainer import memory
from services.trainer.grouping import Limit
from services.trainer.memory import Passes
from services.trainer.saved_state import States

NUM_WEIGHTS = 1000
TOKEN = 10 * (60 * 64 + 8 * 128) + 10 * 100
"""Bytes of a token of the model below: 49,640."""
CHECKPOINTED = (60 * 64 + 8 * 128) + 4 * 10 * 64 + 10 * 100


class Model:
    def __init__(self) -> None:
        self.config = SimpleNamespace(
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=10,
            num_attention_heads=4,
            vocab_size=100,
        )
        self.config.get_text_config = lambda: self.config

    def parameters(self) -> list[Any]:
        return [SimpleNamespace(numel=lambda: NUM_WEIGHTS)]


def config_of(**changes: Any) -> dict[str, Any]:
    values = {"micro_batch_size": "auto", "max_length": 50, "dropout": 0.0}
    return {**values, "weights": {"kind": "full"}, **changes}


def reckoned(num_bytes: float, **changes: Any) -> Passes:
    return memory.reckon(config_of(**changes), Model(), num_bytes, max_tokens=1000)


def test_as_many_tokens_as_memory_holds_beside_the_weights() -> None:
    assert reckoned(18 * NUM_WEIGHTS + 300 * TOKEN) == Passes(Limit(num_tokens=300), False)
    # Of adapters no gradient and no moments of the base's weights, which are in bf16.
    lora = {"kind": "lora"}
    assert reckoned(2 * NUM_WEIGHTS + 300 * TOKEN, weights=lora).limit.num_tokens == 300


def test_more_tokens_than_are_of_use_are_not_taken() -> None:
    assert reckoned(10**12) == Passes(Limit(num_tokens=1000), False)


def test_activations_are_checkpointed_where_no_longest_pair_fits() -> None:
    """A pair is up to twice `max_length`."""
    assert not reckoned(18 * NUM_WEIGHTS + 100 * TOKEN).gradient_checkpointing
    tight = reckoned(18 * NUM_WEIGHTS + 100 * TOKEN - 1)
    assert tight == Passes(Limit(num_tokens=min(1000, (100 * TOKEN - 1) // CHECKPOINTED)), True)


def test_however_little_memory_there_is_one_row_goes_through() -> None:
    assert reckoned(0) == Passes(Limit(num_tokens=1), True)


def test_a_number_in_the_config_is_taken_as_it_is() -> None:
    fits = 18 * NUM_WEIGHTS + 3 * 100 * TOKEN
    assert reckoned(fits, micro_batch_size=3) == Passes(Limit(num_rows=3), False)
    assert reckoned(fits, micro_batch_size=4) == Passes(Limit(num_rows=4), True)


def test_dropout_on_attention_keeps_its_scores() -> None:
    """7 bytes for each of 10 layers, 4 heads and 100 tokens that a token may see."""
    bytes_of_token = TOKEN + 7 * 10 * 4 * 100
    found = reckoned(18 * NUM_WEIGHTS + 200 * bytes_of_token, dropout=0.1)
    assert found.limit.num_tokens == 200


def test_a_training_that_goes_on_makes_the_passes_it_began_with(tmp_path: Path) -> None:
    """On a machine with another memory too: others would round differently."""
    states = States(tmp_path)
    small, large = 18 * NUM_WEIGHTS + 300 * TOKEN, 10**9
    began = memory.passes_of(config_of(), Model(), states, "cpu", int(small / memory.SHARE["cpu"]))
    assert began.limit.num_tokens == pytest.approx(300, abs=1)
    assert memory.passes_of(config_of(), Model(), states, "cpu", large) == began
    assert memory.passes_of(config_of(), Model(), None, "cpu", large) != began


@pytest.mark.parametrize(("said", "expected"), [("5000\n", 5000), ("max\n", None), (None, None)])
def test_a_container_has_the_memory_that_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, expected: int | None
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "CGROUP", limit)
    installed = memory.of_machine()
    assert installed > 10**8
    if said is not None:
        limit.write_text(said)
    assert memory.of_machine() == (expected or installed)
