"""What a library's exception means to the user of a training: which of our errors it is.

Writers hide a full disk: safetensors raises its own type with the system's words in it, and
torch.save a RuntimeError without any. Knows neither of the libraries: it reads what they say.
"""

import errno

from rewardloop.errors import DiskFull, NoExamples, OutOfMemory, RewardloopError, TrainingFailed
from services.trainer.rows import NothingToTrainOn

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FULL_SAID = (
    *(f"(os error {number})" for number in sorted(FULL)),
    "No space left on device",
    "Disk quota exceeded",
    "PytorchStreamWriter failed writing",
    "] . unexpected pos ",
    "basic_ios::clear: iostream error",
)
MEMORY_TYPES = {"OutOfMemoryError", "MemoryError"}
MEMORY_SAID = ("can't allocate memory", "CUDA out of memory", "not enough memory", "bad_alloc")


def as_ours(error: BaseException) -> RewardloopError:
    """One of ours as it is; no rows, a full disk and a lack of memory by their kinds; else that
    the training failed."""
    if isinstance(error, RewardloopError):
        return error
    if isinstance(error, NothingToTrainOn):
        return NoExamples(str(error))
    told = f"{type(error).__name__}: {error}"
    if is_full_disk(error):
        return DiskFull(f"no room left on the disk ({told}); free some space, then try again")
    if is_lack_of_memory(error):
        return OutOfMemory(
            f"not enough memory ({told}); set a smaller micro_batch_size or max_length of this "
            "training, or train adapters (weights: {kind: lora})"
        )
    return TrainingFailed(told)


def is_full_disk(error: BaseException) -> bool:
    return any(
        (isinstance(one, OSError) and one.errno in FULL)
        or any(words in str(one) for words in FULL_SAID)
        for one in _chain(error)
    )


def is_lack_of_memory(error: BaseException) -> bool:
    return any(
        (isinstance(one, OSError) and one.errno == errno.ENOMEM)
        or type(one).__name__ in MEMORY_TYPES
        or any(words in str(one) for words in MEMORY_SAID)
        for one in _chain(error)
    )


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what it was raised from."""
    found: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in found:
        found.append(one)
        one = one.__cause__ or one.__context__
    return found
