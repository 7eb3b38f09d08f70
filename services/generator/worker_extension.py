"""What vLLM's worker lacks for a hot swap; `--worker-extension-cls` adds it to that class.

Its checksums read every byte of every tensor, which is too long for a pause: `sample_weights`
reads the beginnings.

On a CPU vLLM packs each layer's weights for its matrix library. An output head that shares
its weights with the embedding (`tie_word_embeddings`) is packed apart from it, but a reload
packs only layers anew whose own weights it loaded (vLLM 0.32,
`model_loader/reload/layerwise.py`), and such a head has none. Left alone, the engine would
speak with the head that it started with and the body of the new version. Can go when vLLM
packs shared weights anew.

By the same door the gate chooses each worker's top-p filter (see `nucleus_install`).
"""

import hashlib
from typing import Any

from services.generator import nucleus_install

SAMPLED_ELEMENTS = 4096
NUM_ROWS = 4


class PacksSharedHeads:
    """Mixed into vLLM's worker, in its process."""

    model_runner: Any

    def pack_shared_heads(self) -> int:
        """Pack every output head anew; returns how many there are. None is packed on a GPU."""
        from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

        packed = [
            layer
            for layer in self.model_runner.get_model().modules()
            if isinstance(layer, ParallelLMHead) and hasattr(layer, "cpu_linear")
        ]
        for head in packed:
            head.quant_method.process_weights_after_loading(head)
        return len(packed)

    def sort_heads_only(self, on: bool = True) -> dict[str, str | None]:
        """Whose top-p filter this worker uses from now on; `on` is False in benchmarks alone."""
        return nucleus_install.sort_heads_only(on)

    def sample_weights(self) -> dict[str, str]:
        """By name a digest of each tensor's first elements, and of what each packed layer makes of
        fixed rows: where vLLM has packed a layer's weights, its tensor is empty."""
        return {
            name: hashlib.sha256(_bytes(weight.reshape(-1)[:SAMPLED_ELEMENTS])).hexdigest()
            for name, weight in self.model_runner.get_model().named_parameters()
        } | {
            f"{name}, packed": hashlib.sha256(_bytes(_seen_through(layer))).hexdigest()
            for name, layer in self.model_runner.get_model().named_modules()
            if hasattr(layer, "cpu_linear") and not layer.weight.numel()
        }

    def adapter_digest(self, number: int) -> str:
        """sha256 over all tensors of the adapter that vLLM holds under `number`."""
        adapter = self.model_runner.lora_manager._adapter_manager.get_adapter(number)
        digest = hashlib.sha256()
        for name, layer in sorted(adapter.loras.items()):
            digest.update(name.encode())
            for side in (layer.lora_a, layer.lora_b):  # a list where vLLM packs layers into one
                for tensor in side if isinstance(side, list) else [side]:
                    if tensor is not None:
                        digest.update(_bytes(tensor))
        return digest.hexdigest()


def _seen_through(layer: Any) -> Any:
    """x W^T for a packed linear layer W and NUM_ROWS rows x, each of another frequency."""
    import torch

    width = layer.input_size_per_partition
    phase_RK = torch.arange(1, NUM_ROWS + 1)[:, None] * torch.arange(width)[None]
    return layer.cpu_linear(torch.cos(phase_RK).to(layer.weight.dtype), layer.weight, None)


def _bytes(tensor: Any) -> bytes:
    import torch

    found: bytes = tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
    return found
