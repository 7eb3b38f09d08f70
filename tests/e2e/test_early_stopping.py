"""Checks while training: what is asked, when training stops, and which weights remain."""

import asyncio
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rewardloop.config import SupervisedTraining, Training
from services.trainer import dpo, sft
from services.trainer.child import run_child
from services.trainer.early_stopping import NOTHING_KEPT, greedy_answers
from tests.e2e.tiny_model import as_prompt, byte_tokenizer, in_float64, user

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
PROMPTS = ["Hi", "What is the capital of France?", "Name a colour.", "Why?"]
MAX_TOKENS = 6


def sft_task(tiny: Path, output: Path, **changes: Any) -> dict[str, Any]:
    """Eight steps over examples of several lengths, with dropout."""
    config = SupervisedTraining(
        learning_rate=2e-3, learning_rate_floor=1e-3, batch_size=4, micro_batch_size=2
    ).model_dump(mode="json")
    # A floor at the top: the rate stays, so that a shorter run takes the very same steps.
    config |= {"learning_rate_floor": config["learning_rate"], **changes}
    return {
        "base": str(tiny),
        "output": str(output),
        "config": config,
        "seed": 5,
        "examples": [
            {"prompt": user(f"Count to {n}."), "completion": " ".join(map(str, range(n + 1)))}
            for n in range(32)
        ],
    }


def dpo_task(tiny: Path, output: Path, **changes: Any) -> dict[str, Any]:
    """Four steps on one pair."""
    values = {"learning_rate": 3e-3, "learning_rate_floor": 3e-4, "batch_size": 2}
    config = Training(**{**values, "micro_batch_size": 2, **changes})
    pair = {
        "prompt": user("Say yes."),
        "chosen": [{"role": "assistant", "content": "Yes, gladly."}],
        "rejected": [{"role": "assistant", "content": "No, never ever."}],
    }
    return {
        "base": str(tiny),
        "output": str(output),
        "config": config.model_dump(mode="json"),
        "seed": 5,
        "pairs": [pair] * 8,
    }


def with_checks(task: dict[str, Any], every_num_steps: int) -> dict[str, Any]:
    settings = {
        "every_num_steps": every_num_steps,
        "prompts": [user(prompt) for prompt in PROMPTS],
        "max_tokens": MAX_TOKENS,
    }
    return {**task, "early_stopping": settings}


def run(
    module: Any, task: dict[str, Any], monkeypatch: pytest.MonkeyPatch, *goes_on: bool
) -> list[dict[str, Any]]:
    """Train in this process, with a parent that says `goes_on`; returns the reports."""
    said = "".join(json.dumps({"go_on": go_on}) + "\n" for go_on in goes_on)
    monkeypatch.setattr(sys, "stdin", io.StringIO(said))
    channel = io.StringIO()
    module.train(task, channel)
    assert sys.stdin.read() == "", "not every answer was asked for"
    return [json.loads(line) for line in channel.getvalue().splitlines()]


def checks(reports: list[dict[str, Any]]) -> list[int]:
    return [report["validation"]["step"] for report in reports if "validation" in report]


def steps(reports: list[dict[str, Any]]) -> list[int]:
    return [report["step"] for report in reports if "loss" in report.get("metrics", {})]


def same_weights(one: Path, other: Path) -> bool:
    (first,), (second,) = ([load_file(p) for p in f.glob("*.safetensors")] for f in (one, other))
    assert set(first) == set(second)
    return all(torch.equal(first[name], second[name]) for name in first)


def test_a_stop_brings_the_weights_of_the_check_before_back(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are bit for bit those of a run that ends at that check and never checks."""
    stopped = with_checks(sft_task(tiny, tmp_path / "stopped"), every_num_steps=3)
    reports = run(sft, stopped, monkeypatch, True, True, False)
    assert reports[0] == {"num_steps": 8}
    assert checks(reports) == [0, 3, 6]
    assert {"stopped_at": 6, "kept_step": 3} in reports
    assert {"outcome": NOTHING_KEPT} not in reports
    assert steps(reports) == [1, 2, 3, 4, 5, 6]
    run(sft, sft_task(tiny, tmp_path / "short", num_epochs=3 / 8), monkeypatch)
    assert same_weights(tmp_path / "stopped", tmp_path / "short")
    assert not same_weights(tmp_path / "stopped", tiny)


def test_a_stop_at_the_first_check_gives_the_base_back(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = with_checks(dpo_task(tiny, tmp_path / "out"), every_num_steps=2)
    reports = run(dpo, task, monkeypatch, True, False)
    assert {"stopped_at": 2, "kept_step": 0} in reports
    assert {"outcome": NOTHING_KEPT} in reports
    assert same_weights(tmp_path / "out", tiny)


def test_adapters_are_brought_back_too(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapters = {"kind": "lora", "rank": 4, "alpha": 8}
    task = with_checks(dpo_task(tiny, tmp_path / "out", weights=adapters), every_num_steps=2)
    reports = run(dpo, task, monkeypatch, True, False)
    assert {"stopped_at": 2, "kept_step": 0} in reports
    written = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert not any(weight.any() for name, weight in written.items() if "lora_B" in name)


def test_a_model_that_keeps_winning_is_trained_to_the_end(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = with_checks(dpo_task(tiny, tmp_path / "checked"), every_num_steps=3)
    reports = run(dpo, checked, monkeypatch, True, True, True)
    assert checks(reports) == [0, 3, 4]
    assert not any("stopped_at" in report for report in reports)
    run(dpo, dpo_task(tiny, tmp_path / "unchecked"), monkeypatch)
    assert same_weights(tmp_path / "checked", tmp_path / "unchecked")


def test_a_last_check_that_is_lost_gives_the_one_before_back(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = with_checks(dpo_task(tiny, tmp_path / "out"), every_num_steps=4)
    reports = run(dpo, task, monkeypatch, True, False)
    assert checks(reports) == [0, 4]
    assert {"stopped_at": 4, "kept_step": 0} in reports
    assert same_weights(tmp_path / "out", tiny)


def test_the_parent_is_asked_over_the_channel(tiny: Path, tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []

    async def answer(question: dict[str, Any]) -> dict[str, Any]:
        asked.append(question)
        return {"go_on": len(asked) < 3}

    async def collect() -> list[dict[str, Any]]:
        task = with_checks(sft_task(tiny, tmp_path / "out"), every_num_steps=3)
        return [report async for report in run_child("services.trainer.sft", task, answer)]

    reports = asyncio.run(collect())
    assert [question["step"] for question in asked] == [0, 3, 6]
    assert all(len(question["answers"]) == len(PROMPTS) for question in asked)
    assert asked[0]["answers"] != asked[1]["answers"]
    assert {"stopped_at": 6, "kept_step": 3} in reports
    assert steps(reports) == [1, 2, 3, 4, 5, 6]


def test_answers_are_greedy_and_no_batch_changes_them(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.trainer.early_stopping.NUM_PROMPTS_AT_ONCE", 3)
    model, tokenizer = in_float64(tiny), byte_tokenizer()
    # The second token of one answer ends it, so that answers of a batch differ in length.
    end = by_hand(model, PROMPTS[1], end=-1)[1]
    tokenizer.eos_token = tokenizer.pad_token = tokenizer.convert_ids_to_tokens(end)
    model.generation_config.eos_token_id = end
    answers = [by_hand(model, prompt, end) for prompt in PROMPTS]
    assert sorted({len(answer) for answer in answers}) == [2, MAX_TOKENS]
    # Dropout is there, and answers must not see it.
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    model.train()
    found = greedy_answers(model, tokenizer, [user(prompt) for prompt in PROMPTS], MAX_TOKENS)
    assert model.training
    # As an engine does: the token that ends an answer is not part of its text.
    texts = [answer[:-1] if answer[-1] == end else answer for answer in answers]
    assert found == tokenizer.batch_decode(texts, skip_special_tokens=True)


def by_hand(model: Any, prompt: str, end: int) -> list[int]:
    """The most likely token, appended, again and again; alone, without a cache."""
    ids = byte_tokenizer()(as_prompt(prompt))["input_ids"]
    answer: list[int] = []
    while len(answer) < MAX_TOKENS and end not in answer:
        with torch.no_grad():
            logits_V = model(torch.tensor([ids + answer])).logits[0, -1]
        answer.append(int(logits_V.argmax()))
    return answer


def test_a_prompt_that_the_template_refuses_has_an_empty_answer(tiny: Path) -> None:
    tokenizer = byte_tokenizer()
    refuses = "{% if messages | length > 1 %}{{ raise_exception('one turn') }}{% endif %}"
    tokenizer.chat_template = refuses + tokenizer.chat_template
    prompts = [user("Hi"), [*user("Hi"), *user("again")]]
    answer, refused = greedy_answers(in_float64(tiny), tokenizer, prompts, MAX_TOKENS)
    assert answer != ""
    assert refused == ""
