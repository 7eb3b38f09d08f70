"""What a version gives to answers: log-probabilities that DPO needs of its reference.

They depend on the version's weights, on the tokens of prompt and answer, and on how they are
computed; on nothing of a pair, a policy or a run. So they are kept beside the checkpoints, by a
digest of all that, and looked up by each later training from the same version: other pair
policies, replays, retries. A file that is lost or has changed costs computing it again.

`<root>/.<version>.reference/<sha256 of the file>.logps` is a row of records: a digest of 32 bytes
and a sum in nats, a little-endian float64. Knows neither torch nor TRL.
"""

import hashlib
import logging
import os
import struct
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from services.trainer import faults
from services.trainer.saved_state import sha256

logger = logging.getLogger("rewardloop.trainer")

RECORD = struct.Struct("<32sd")
SUFFIX = ".logps"


def folder_of(root: Path, version: str) -> Path:
    """Where a version's lie; the name begins with a dot, so that it is no checkpoint."""
    return root / f".{version}.reference"


def key_of(made_by: bytes, prompt_ids: Iterable[int], answer_ids: Iterable[int]) -> bytes:
    """`made_by` says of which weights, and how."""
    parts = [made_by, array("q", prompt_ids).tobytes(), array("q", answer_ids).tobytes()]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()


@dataclass(frozen=True, slots=True)
class KeptLogps:
    folder: Path

    def read(self) -> dict[bytes, float]:
        found: dict[bytes, float] = {}
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            if path.stem == sha256(path):
                found |= RECORD.iter_unpack(path.read_bytes())
            else:
                logger.warning("%s has changed: what it held is computed again", path.name)
                path.unlink()
        return found

    def add(self, made: dict[bytes, float]) -> None:
        """Unless the disk has no room for them."""
        partial = self.folder / f"partial-{os.getpid()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(b"".join(RECORD.pack(*record) for record in made.items()))
            partial.rename(self.folder / (sha256(partial) + SUFFIX))
        except Exception as error:
            if not faults.is_full_disk(error):
                raise
            logger.warning("the reference's log-probabilities could not be kept: %s", error)
            partial.unlink(missing_ok=True)
