"""What the tests of this folder need, and why they are skipped elsewhere."""

from importlib.util import find_spec

import pytest
import torch

GPU = [
    pytest.mark.gpu,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="needs a GPU, and PyTorch sees none here"
    ),
]
ENGINE = [
    *GPU,
    pytest.mark.skipif(
        find_spec("vllm") is None, reason="needs vLLM's CUDA build, which is not installed here"
    ),
]
