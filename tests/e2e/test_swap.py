"""The running engine serves the published checkpoint, and only that."""

import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from rewardloop import checkpoints
from services.trainer.canaries import write_canaries
from tests.e2e.real_demo import Demo

BOUND_NATS = 0.05
"""Mean |difference| that bf16 rounding causes: docs/decisions/0004-canaries.md."""

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1000)]
PROMPTS = (
    "What is the capital of Norway, and what is it known for?",
    "Write two sentences about autumn.",
    "How do I sort a list in Python?",
    "Give me a tip for better sleep.",
    "Why do cats purr?",
    "Explain what a budget is.",
)


def weights(demo: Demo) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {demo.keys['admin_key']}"}
    url = f"{demo.addresses['generator']}/admin/weights"
    answer: dict[str, Any] = httpx.get(url, headers=headers, timeout=60).json()
    return answer


def committed(demo: Demo, version: str) -> dict[str, Any]:
    """What a controller says of a version; those that a test publishes are not in Postgres."""
    folder = demo.home / "checkpoints" / version
    if not (folder / checkpoints.MANIFEST).exists():
        return {}
    return {"manifest_sha256": checkpoints.digest_of(checkpoints.read_manifest(folder))}


def activate(demo: Demo, version: str) -> httpx.Response:
    return httpx.post(
        f"{demo.addresses['generator']}/admin/activate",
        json={"version": version, **committed(demo, version)},
        headers={"authorization": f"Bearer {demo.keys['admin_key']}"},
        timeout=240,
    )


def greedy(demo: Demo, prompt: str) -> tuple[list[int], list[int], list[float]]:
    """Prompt ids, greedy continuation ids and their log-probabilities by the engine."""
    answer = httpx.post(
        f"{demo.addresses['generator']}/v1/chat/completions",
        json={
            "model": "policy",
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": 24,
            "logprobs": True,
            "return_token_ids": True,
        },
        headers={"authorization": f"Bearer {demo.keys['api_key']}"},
        timeout=120,
    ).json()
    choice = answer["choices"][0]
    logprobs = [token["logprob"] for token in choice["logprobs"]["content"]]
    return answer["prompt_token_ids"], choice["token_ids"], logprobs


def differences(demo: Demo, version: str) -> list[float]:
    """|engine - transformers| for each greedy token, in nats, under `version`'s files."""
    folder = demo.home / "checkpoints" / version
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    found = []
    for prompt in PROMPTS:
        prompt_ids, ids, logprobs = greedy(demo, prompt)
        with torch.inference_mode():
            logits_TV = model(torch.tensor([prompt_ids + ids])).logits[0].float()
        reference_TV = logits_TV.log_softmax(-1)
        first = len(prompt_ids) - 1
        found += [
            abs(float(reference_TV[first + t, token]) - logprob)
            for t, (token, logprob) in enumerate(zip(ids, logprobs, strict=True))
        ]
    return found


def test_the_engine_speaks_as_the_published_checkpoint_and_not_as_the_base(demo: Demo) -> None:
    base = demo.summary["iterations"][0]["base_version"]
    new = demo.summary["iterations"][-1]["new_version"]
    assert weights(demo)["version"] == new
    to_new, to_base = differences(demo, new), differences(demo, base)
    print(
        f"mean |difference|: new {statistics.mean(to_new):.4f}, "
        f"base {statistics.mean(to_base):.4f} nats over {len(to_new)} tokens"
    )
    assert statistics.mean(to_new) < BOUND_NATS
    assert statistics.mean(to_base) > BOUND_NATS


def test_a_swap_there_and_back_changes_checksums_and_restores_them(demo: Demo) -> None:
    base = demo.summary["iterations"][0]["base_version"]
    new = demo.summary["iterations"][-1]["new_version"]
    before = weights(demo)["checksums"]
    at_base = activate(demo, base).json()
    assert at_base["version"] == base
    assert at_base["canary"]["mean_difference"] < BOUND_NATS
    changed = [name for name in before if before[name] != at_base["checksums"][name]]
    # The CPU engine packs linear layers away and leaves empty tensors behind, so that of
    # 182 tensors only embeddings and norms have a digest of their own.
    assert any(name.endswith("embed_tokens.weight") for name in changed)
    assert activate(demo, new).json()["checksums"] == before


def louder(demo: Demo, version: str) -> str:
    """Publish `version` with its embedding, which is its output head too, 1.3 times as large.

    RMSNorm takes the factor out again on the way in, so that mostly the logits grow.
    """
    root = demo.home / "checkpoints"

    def write(folder: Path) -> None:
        for file in (root / version).iterdir():
            if file.name not in (checkpoints.MANIFEST, checkpoints.CANARIES):
                shutil.copy(file, folder)
        tensors = load_file(folder / "model.safetensors")
        tensors["model.embed_tokens.weight"] *= 1.3
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        write_canaries(folder)

    checkpoints.publish(root, f"{version}-louder", write, {"parent": version})
    return f"{version}-louder"


def test_an_output_head_that_shares_its_weights_is_swapped_too(demo: Demo) -> None:
    """vLLM's CPU engine keeps a packed copy of it, which a reload alone leaves as it was."""
    new = demo.summary["iterations"][-1]["new_version"]
    version = louder(demo, new)
    try:
        assert activate(demo, version).status_code == 200
        to_louder, to_new = differences(demo, version), differences(demo, new)
        assert statistics.mean(to_louder) < BOUND_NATS < statistics.mean(to_new)
    finally:
        assert activate(demo, new).status_code == 200


def test_a_damaged_checkpoint_is_refused_and_the_old_version_goes_on(demo: Demo) -> None:
    base = demo.summary["iterations"][0]["base_version"]
    new = demo.summary["iterations"][-1]["new_version"]
    canaries = demo.home / "checkpoints" / base / "canaries.json"
    good = canaries.read_text()
    canaries.write_text(json.dumps({"canaries": []}))
    try:
        answer = activate(demo, base)
    finally:
        canaries.write_text(good)
    assert answer.status_code == 500
    assert "canaries.json differ from the manifest" in answer.json()["detail"]
    assert weights(demo)["version"] == new


def test_versions_are_ids_and_not_paths(demo: Demo) -> None:
    assert activate(demo, "../../etc").status_code == 422
    assert activate(demo, "no-such-version").status_code == 404
