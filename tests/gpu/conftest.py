"""A tiny model that is trained here, and one that is large enough for vLLM's GPU kernels."""

from pathlib import Path

import pytest

from benchmarks.gpu_check_models import written_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_model("tiny", tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_model("small", tmp_path_factory.mktemp("small"))
