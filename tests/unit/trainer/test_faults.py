"""Which of our errors a library's exception is."""

import errno
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rewardloop.errors import DiskFull, NoExamples, OutOfMemory, TrainingFailed
from services.trainer.faults import as_ours
from services.trainer.rows import NothingToTrainOn


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may be larger than 64 KiB, which to a writer is as a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files")
def test_safetensors_hides_a_full_disk_and_it_is_found(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="os error") as caught:
        save_file({"w": np.zeros(2**16, np.float32)}, tmp_path / "w.safetensors")
    assert not isinstance(caught.value, OSError)
    assert isinstance(as_ours(caught.value), DiskFull)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("[enforce fail] . PytorchStreamWriter failed writing file data/0: full"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 435200 vs 435092"),
        Exception("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_has_its_kind(error: Exception) -> None:
    told = as_ours(error)
    assert isinstance(told, DiskFull)
    assert str(error) in told.message
    assert "free some space" in told.message


class OutOfMemoryError(RuntimeError):
    """Of torch's name."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemoryError("CUDA error"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_a_lack_of_memory_has_its_kind(error: Exception) -> None:
    told = as_ours(error)
    assert isinstance(told, OutOfMemory)
    assert "micro_batch_size" in told.message


def test_what_an_error_was_raised_from_is_looked_at() -> None:
    def write() -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RuntimeError("could not save") from error

    with pytest.raises(RuntimeError) as caught:
        write()
    assert isinstance(as_ours(caught.value), DiskFull)


@pytest.mark.parametrize("error", [ValueError("no space in this text"), OSError(errno.EIO, "bad")])
def test_any_other_error_is_a_failed_training_with_its_types_name(error: Exception) -> None:
    told = as_ours(error)
    assert type(told) is TrainingFailed
    assert told.message == f"{type(error).__name__}: {error}"


def test_no_rows_has_its_kind() -> None:
    told = as_ours(NothingToTrainOn("nothing is left"))
    assert (type(told), told.message) == (NoExamples, "nothing is left")
