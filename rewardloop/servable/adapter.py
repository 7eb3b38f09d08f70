"""An adapter: low-rank changes to linear layers of a version of full weights, its base.

Reads peft's two files and runs no model. Invariant: what passes `require_fitting` is plain LoRA
in float32, W + (alpha / rank) B A, of layers that the base has, and nothing else of what peft
can do. A base is named by its version and lies beside the adapter, under the same root.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from rewardloop.records import VERSION_ID
from rewardloop.servable.code import invalid, read_json
from rewardloop.servable.weights import Layout, Tensor, differences, read_layout

ADAPTER = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
FILES = frozenset({ADAPTER, WEIGHTS, "canaries.json", "manifest.json"})
"""All that an adapter's folder holds; the rest is its base's."""
_SAID = frozenset({"base_model_name_or_path", "r", "lora_alpha", "target_modules", "peft_type"})
_NO_MATTER = frozenset(
    {
        *("task_type", "peft_version", "inference_mode", "lora_dropout", "init_lora_weights"),
        *("megatron_core", "qalora_group_size"),
    }
)
"""Keys of peft that change nothing, or nothing without another key that is refused."""
_NOTHING: tuple[Any, ...] = (None, False, "none", "", [], {})
_LAYER = "base_model.model.{}.lora_{}.weight"


@dataclass(frozen=True, slots=True)
class Adapter:
    base: str
    """The version of its base."""
    rank: int
    alpha: float
    targets: tuple[str, ...]
    """Ends of the names of the layers that it changes."""

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def layers(self, base: Layout) -> list[str]:
        """Names of the base's matrices that it changes."""
        return [
            name
            for name, tensor in base.items()
            if len(tensor.shape) == 2 and any(_is_of(name, target) for target in self.targets)
        ]

    def layout(self, base: Layout) -> Layout:
        """The tensors that it must hold, on such a base."""
        found: Layout = {}
        for name in self.layers(base):
            num_out, num_in = base[name].shape
            found[tensor_name(name, "A")] = Tensor("F32", (self.rank, num_in))
            found[tensor_name(name, "B")] = Tensor("F32", (num_out, self.rank))
        return found


def tensor_name(weight: str, side: str) -> str:
    """peft's name of the matrix A or B that changes the base's `weight`."""
    return _LAYER.format(weight.removesuffix(".weight"), side)


def most_bytes(base: Layout, rank: int) -> int:
    """What an adapter of all matrices of such a base takes in float32, at the most."""
    matrices = [tensor.shape for tensor in base.values() if len(tensor.shape) == 2]
    return sum(4 * rank * (num_out + num_in) for num_out, num_in in matrices)


def is_adapter(folder: Path) -> bool:
    return (folder / ADAPTER).exists()


def effective_folder(folder: Path) -> Path:
    """Where config, tokenizer and template of the model in `folder` lie: with an adapter, in
    its base's folder; else in its own.

    Raises:
        CheckpointInvalid: the base is not there, or is an adapter itself, or the adapter's
            config does not name a version.
    """
    if not is_adapter(folder):
        return folder
    base = folder.parent / read_adapter(folder).base
    if not base.is_dir():
        raise invalid(folder, f"its base {base.name} is not there; restore that folder from a copy")
    if is_adapter(base):
        raise invalid(
            folder,
            f"its base {base.name} is an adapter too; train it on a version of full weights",
        )
    return base


def read_adapter(folder: Path) -> Adapter:
    """
    Raises:
        CheckpointInvalid: the config asks for anything but plain LoRA, or names no version.
    """
    said = read_json(folder / ADAPTER)
    keys = ("base_model_name_or_path", "r", "lora_alpha", "target_modules")
    base, rank, alpha, targets = (said.get(key) for key in keys)
    if not isinstance(base, str) or not VERSION_ID.fullmatch(base):
        raise invalid(
            folder, f"{ADAPTER} names {base!r} as its base, which is no version id; mend it"
        )
    if odd := _odd_keys(said):
        raise invalid(
            folder,
            f"{ADAPTER} sets {', '.join(odd)}, which is not plain LoRA; train it with rank, alpha "
            "and target modules alone",
        )
    if _is_count(rank) and _is_above_0(alpha) and _are_names(targets):
        return Adapter(base, rank, alpha, tuple(sorted(targets)))
    raise invalid(
        folder,
        f"{ADAPTER} does not say r, lora_alpha and target_modules (a list of names); train the "
        "version again",
    )


def require_fitting(folder: Path, base: Layout | None) -> None:
    """Check the adapter in `folder` against its base's tensors; None for what is no model.

    Raises:
        CheckpointInvalid: it has other files or tensors than it should, or its base lacks a layer
            that it changes.
    """
    if others := sorted({path.name for path in folder.iterdir()} - FILES):
        raise invalid(
            folder,
            f"an adapter's folder holds nothing but {', '.join(sorted(FILES))}: delete "
            f"{', '.join(others[:3])}",
        )
    adapter, found = read_adapter(folder), read_layout(folder)
    if base is None:
        return
    lost = [target for target in adapter.targets if not _has_layer(base, target)]
    if lost:
        raise invalid(
            folder,
            f"its base {adapter.base} has no linear layer {', '.join(lost[:3])}; train the "
            "adapter on that base",
        )
    if differ := differences(adapter.layout(base), found):
        raise invalid(
            folder,
            f"its tensors are not those that {ADAPTER} asks for ({differ}); train the version "
            "again",
        )


def _has_layer(base: Layout, target: str) -> bool:
    return any(len(tensor.shape) == 2 and _is_of(name, target) for name, tensor in base.items())


def _is_of(name: str, target: str) -> bool:
    """peft's rule: the layer's name, or its end behind a dot."""
    return f".{name}".endswith(f".{target}.weight")


def _odd_keys(said: dict[str, Any]) -> list[str]:
    odd = {key for key in said.keys() - _SAID - _NO_MATTER if said[key] not in _NOTHING}
    if said.get("peft_type") != "LORA":
        odd.add("peft_type")
    if not isinstance(said.get("init_lora_weights", True), bool):
        odd.add("init_lora_weights")  # the others change the base
    return sorted(odd)


def _is_above_0(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 2**31


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and _is_above_0(value)


def _are_names(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and bool(value) and all(v and isinstance(v, str) for v in value)
