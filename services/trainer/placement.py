"""Where a model is trained and looked at: the first GPU that this process sees, or the CPU."""

import torch


def device() -> torch.device:
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


def device_map() -> dict[str, torch.device] | None:
    """Has transformers read a model straight onto the GPU, without a copy in main memory first;
    None where there is no GPU."""
    return {"": device()} if torch.cuda.is_available() else None


def take_any_length() -> None:
    """Attention without cuDNN, which seems to plan anew for each length that comes, and here
    nearly each is new: on an H200 a pass took three times as long with it (PyTorch 2.11)."""
    torch.backends.cuda.enable_cudnn_sdp(False)
