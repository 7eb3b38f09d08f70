"""What is trained of a version, and what is written of it: whole weights, or an adapter.

A task names `base`, a folder of full weights, and where M_t is an adapter on it, `adapter`, that
one's folder. Adapters are held in float32 on a base in bf16. They are trained on from M_t's; the
base stays as it was published, however many versions stand on it.
"""

import json
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel

from rewardloop.merging import merge_into
from rewardloop.servable.adapter import ADAPTER
from rewardloop.servable.weights import read_layout
from services.trainer import finite, optimisation, whole_model
from services.trainer.canaries import write_canaries


def load_policy(task: dict[str, Any]) -> tuple[Any, LoraConfig | None]:
    """M_t on its device, and the adapters that TRL is to add to it before it is trained.

    Whole weights are trained of M_t with its adapter merged.

    Raises:
        ValueError: the model has no dropout where one is asked for, or no layers that an adapter
            could be published of.
    """
    config, base = task["config"], Path(task["base"])
    model = optimisation.load_model(str(base), config["dropout"], config["weights"])
    adapter = Path(task["adapter"]) if task.get("adapter") else None
    if config["weights"]["kind"] == "full":
        if adapter is not None:
            merge_into(model, base, adapter)
        return model, None
    _require_named_layers(model, base)
    if adapter is None:
        return model, lora(config["weights"])
    adapted = PeftModel.from_pretrained(model, str(adapter), is_trainable=True)
    # PEFT looks there whenever a state is saved, and would ask a hub for the version's name.
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    return adapted, None


def lora(weights: dict[str, Any]) -> LoraConfig:
    """Adapters on every linear layer but the output's, which PEFT makes in float32."""
    return LoraConfig(
        r=weights["rank"],
        lora_alpha=weights["alpha"],
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def save(model: Any, tokenizer: Any, task: dict[str, Any]) -> None:
    """Write what was trained to the task's `output`, with its canaries.

    Raises:
        ValueError: a weight is not finite.
    """
    output = Path(task["output"])
    if isinstance(model, PeftModel):
        _save_adapter(model, Path(task["base"]), output)
    else:
        whole_model.save(model, tokenizer, output)


def _save_adapter(model: Any, base: Path, output: Path) -> None:
    """As PEFT writes it, with the base's version in the place of its path."""
    output.mkdir(parents=True, exist_ok=True)
    finite.require_weights(model)
    whole_model.leave_gpu(model)
    # Asked about embeddings, it would look for the base's config on a hub.
    model.save_pretrained(output, save_embedding_layers=False)
    path = output / ADAPTER
    said = json.loads(path.read_text())
    said |= {"base_model_name_or_path": base.name, "target_modules": sorted(said["target_modules"])}
    path.write_text(json.dumps(said, indent=1, sort_keys=True))
    whole_model.remove_scratch(output)
    write_canaries(output, base)


def _require_named_layers(model: Any, base: Path) -> None:
    """
    Raises:
        ValueError: a layer that would get an adapter is none that the base's files name.
    """
    head = model.get_output_embeddings()
    layers = {
        name
        for name, module in model.named_modules()
        if type(module).__name__ in ("Linear", "Conv1D") and module is not head
    }
    known = read_layout(base)
    odd = sorted(n for n in layers if f"{n}.weight" not in known or _is_turned(model, n))
    if odd or not layers:
        raise ValueError(
            f"a {model.config.model_type} model cannot be trained by adapters here: its files "
            f"have no linear layer {', '.join(odd[:3]) or 'at all'}; train all weights (weights: "
            "{kind: full})"
        )


def _is_turned(model: Any, name: str) -> bool:
    """GPT-2's layers hold their matrices transposed, of which an engine knows nothing."""
    return type(model.get_submodule(name)).__name__ == "Conv1D"
