"""Supervised fine-tuning on a tiny random model: TRL does what the config says."""

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from rewardloop.config import SupervisedTraining, Training
from services.trainer import optimisation, sft
from services.trainer.child import run_child
from services.trainer.parts import Batch
from tests.e2e.tiny_model import (
    as_prompt,
    byte_tokenizer,
    gradients,
    in_float64,
    response_logprobs,
    user,
    worst_difference,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
TEXTS = [
    ("Say yes.", "Yes, gladly."),
    ("Two plus two?", "Four, as everybody will have learnt at school."),
    ("Hi", "Hello!"),
]


def task_of(
    tiny: Path, output: Path, texts: list[tuple[str, str]], seed: int = 1, **changes: Any
) -> dict[str, Any]:
    values = {"learning_rate": 3e-3, "learning_rate_floor": 3e-4, "batch_size": 4}
    config = SupervisedTraining(**{**values, "micro_batch_size": 2, "dropout": 0.0, **changes})
    return {
        "base": str(tiny),
        "output": str(output),
        "config": config.model_dump(mode="json"),
        "seed": seed,
        "examples": [{"prompt": user(p), "completion": completion} for p, completion in texts],
    }


def train(task: dict[str, Any]) -> list[dict[str, Any]]:
    """Train in this process; returns the reports."""
    channel = io.StringIO()
    sft.train(task, channel)
    return [json.loads(line) for line in channel.getvalue().splitlines()]


def logged(reports: list[dict[str, Any]], name: str) -> list[float]:
    steps = [r["metrics"] for r in reports if "loss" in r.get("metrics", {})]
    return [step[name] for step in steps]


def test_a_child_trains_and_writes_a_checkpoint(tiny: Path, tmp_path: Path) -> None:
    task = task_of(tiny, tmp_path / "out", TEXTS[:1] * 16)

    async def collect() -> list[dict[str, Any]]:
        return [report async for report in run_child("services.trainer.sft", task)]

    reports = asyncio.run(collect())
    assert reports[0] == {"num_steps": 4}
    losses = logged(reports, "loss")
    assert losses[-1] < losses[0] / 2
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "canaries.json"} <= written
    assert not any(name.endswith(".bin") for name in written)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float32"


def test_only_the_completion_and_its_end_are_learnt(tiny: Path, tmp_path: Path) -> None:
    """In a padded batch, where padding and end are the same token."""
    trainer = sft.build(task_of(tiny, tmp_path, TEXTS, micro_batch_size=4), io.StringIO())
    (batch,) = trainer.get_train_dataloader()
    tokenizer = byte_tokenizer()
    learnt, masked = set(), set()
    for ids, labels, mask in zip(
        batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True
    ):
        assert torch.equal(labels[labels != -100], ids[labels != -100])
        learnt.add(tokenizer.decode(ids[labels != -100]))
        masked.add(tokenizer.decode(ids[(labels == -100) & mask.bool()]))
    assert learnt == {f"{completion}<|im_end|>" for _, completion in TEXTS}
    assert masked == {as_prompt(prompt) for prompt, _ in TEXTS}


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize("takes_number_of_tokens", [True, False])
def test_loss_and_gradients_are_the_mean_over_the_tokens_of_a_step(
    tiny: Path, tmp_path: Path, takes_number_of_tokens: bool
) -> None:
    """The step has several forward passes; a mean of their means would weigh tokens differently."""
    model = in_float64(tiny)
    tokens = torch.cat([response_logprobs(model, *text) for text in TEXTS])
    expected = -tokens.mean()
    expected.backward()
    trainer = sft.build(
        task_of(tiny, tmp_path, TEXTS, batch_size=2, micro_batch_size=1, num_epochs=1),
        io.StringIO(),
    )
    trainer.model.train()
    whole = trainer.data_collator([trainer.train_dataset[i] for i in range(3)])
    loss = trainer.compute_loss(trainer.model, whole)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert worst_difference(gradients(trainer.model), gradients(model)) < 1e-4
    parted = sft.build(
        task_of(tiny, tmp_path, TEXTS, batch_size=3, micro_batch_size=1), io.StringIO()
    )
    parted.model_accepts_loss_kwargs = takes_number_of_tokens
    parted.train()
    found_losses = [row["loss"] for row in parted.state.log_history if "loss" in row]
    assert found_losses == [pytest.approx(expected.item(), rel=1e-4)]


def test_the_cosine_ends_at_the_floor(tiny: Path, tmp_path: Path) -> None:
    trainer = sft.build(task_of(tiny, tmp_path, TEXTS[:1] * 16), io.StringIO())
    trainer.train()
    rates = [step["learning_rate"] for step in trainer.state.log_history if "loss" in step]
    # f + (r - f)(1 + cos(pi x)) / 2 at x = 0, 1/4, 1/2, 3/4, with r = 3e-3 and f = 3e-4.
    assert rates == pytest.approx([3e-3, 2.604594e-3, 1.65e-3, 6.95406e-4])
    assert trainer.lr_scheduler.get_last_lr()[0] == pytest.approx(3e-4)


def test_winners_are_trained_on_with_the_config_and_schedule_of_dpo(
    tiny: Path, tmp_path: Path
) -> None:
    task = task_of(tiny, tmp_path, TEXTS[:1] * 16)
    values = {"learning_rate": 3e-3, "learning_rate_floor": 3e-4, "batch_size": 4}
    config = Training(loss={"kind": "sft_winners"}, **values)  # type: ignore[arg-type]
    reports = train({**task, "config": config.model_dump(mode="json"), "schedule": "linear"})
    assert logged(reports, "learning_rate") == pytest.approx([3e-3, 2.325e-3, 1.65e-3, 9.75e-4])


def test_another_schedule_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'constant'"):
        train({**task_of(tiny, tmp_path, TEXTS), "schedule": "constant"})


def test_dropout_is_in_force_and_not_published(tiny: Path, tmp_path: Path) -> None:
    without = logged(train(task_of(tiny, tmp_path, TEXTS)), "loss")
    with_dropout = logged(train(task_of(tiny, tmp_path, TEXTS, dropout=0.5)), "loss")
    assert abs(with_dropout[0] - without[0]) > 0.01
    assert json.loads((tmp_path / "config.json").read_text())["attention_dropout"] == 0.0


def test_a_prompt_that_fills_max_length_is_dropped_and_reported(tiny: Path, tmp_path: Path) -> None:
    num_tokens = len(byte_tokenizer()(as_prompt("x" * 40))["input_ids"])
    texts = [("x" * 40, "too long"), ("x" * 39, "one token fits"), ("x" * 80, "too long")]
    task = task_of(tiny, tmp_path, texts, max_length=num_tokens)
    reports = train(task)
    assert reports[0]["num_dropped"] == 2
    assert str(num_tokens) in reports[0]["why"]
    assert reports[1] == {"num_steps": 1}
    trainer = sft.build(task, io.StringIO())
    (example,) = trainer.train_dataset
    assert len(example["input_ids"]) == num_tokens
    assert byte_tokenizer().decode([x for x in example["labels"] if x != -100]) == "o"


def test_nothing_left_to_learn_is_an_error(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no rows"):
        train(task_of(tiny, tmp_path, []))
    with pytest.raises(ValueError, match=r"all 2 rows .* 16 tokens; raise max_length"):
        train(task_of(tiny, tmp_path, [("x" * 40, "y")] * 2, max_length=16))


@pytest.mark.parametrize(
    ("num_examples", "num_steps", "batch_size"),
    [(1, 1, 1), (2, 1, 2), (3, 1, 3), (4, 1, 4), (5, 2, 4), (8, 2, 4)],
)
def test_fewer_examples_than_a_batch_make_a_smaller_one(
    tiny: Path, tmp_path: Path, num_examples: int, num_steps: int, batch_size: int
) -> None:
    """Batches of 4 in forward passes of 2: of 3 examples, one batch of 3 in two passes."""
    reports = train(task_of(tiny, tmp_path, TEXTS[:1] * num_examples))
    assert reports[:2] == [{"num_steps": num_steps}, {"batch_size": batch_size}]
    assert len(logged(reports, "loss")) == num_steps


def test_dropout_is_refused_where_a_model_has_none_on_attention(tmp_path: Path) -> None:
    """GPT-2 has three other kinds; its config would swallow ours, and the model choke on it."""
    config = GPT2Config(vocab_size=16, n_positions=16, n_embd=8, n_layer=1, n_head=1)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    assert optimisation.load_model(str(tmp_path), dropout=0.0).dtype == torch.float32
    with pytest.raises(ValueError, match="gpt2 model has no attention_dropout"):
        optimisation.load_model(str(tmp_path), dropout=0.1)


def test_a_run_can_be_repeated_bit_for_bit(tiny: Path, tmp_path: Path) -> None:
    texts = [(f"Count to {n}.", " ".join(map(str, range(n)))) for n in range(16)]

    def weights(name: str, seed: int) -> dict[str, torch.Tensor]:
        train(task_of(tiny, tmp_path / name, texts, seed=seed, num_epochs=2, dropout=0.1))
        return load_file(tmp_path / name / "model.safetensors")

    first, again, other = weights("first", 1), weights("again", 1), weights("other", 2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_each_step_is_a_random_batch_with_like_lengths_side_by_side(
    tiny: Path, tmp_path: Path
) -> None:
    texts = [("Hi", "x" * n) for n in range(16)]

    def passes_of(seed: int) -> list[list[int]]:
        trainer = sft.build(task_of(tiny, tmp_path, texts, seed, batch_size=8), io.StringIO())
        return [
            sorted(int((labels != -100).sum()) - 1 for labels in part.inputs["labels"])
            for batch in trainer.get_train_dataloader()
            for part in Batch(batch, num_sides=1).parts(trainer.limit)
        ]

    passes = passes_of(seed=1)
    assert passes == passes_of(seed=1) != passes_of(seed=2)
    assert len(passes) == 8
    first = [length for lengths in sorted(passes[:4]) for length in lengths]
    second = [length for lengths in sorted(passes[4:]) for length in lengths]
    assert first == sorted(first)
    assert second == sorted(second)
    assert sorted(first + second) == [*range(16)]
    assert first not in ([*range(8)], [*range(8, 16)])
