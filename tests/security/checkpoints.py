"""How many of 200 damaged checkpoints are served: `python -m tests.security.checkpoints`.

Each is activated at the real swapper, under an engine that loads whatever it is given and
whose log-probabilities always are the trainer's: what the files do not show, nothing else
would. Prints one JSON object.
"""

import asyncio
import json
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

from starlette.types import Receive, Scope, Send

from rewardloop import checkpoints
from rewardloop.errors import RewardloopError
from services.generator.admission import Admission
from services.generator.swap import Swapper
from tests.security import small_checkpoint
from tests.security.damage import KINDS, outside

NUM_DAMAGED = 200


class CredulousEngine:
    """The methods of vLLM's engine client that the gate calls."""

    def __init__(self) -> None:
        self.num_loaded = 0

    async def pause_generation(self, *, mode: str, clear_cache: bool) -> None: ...

    async def resume_generation(self) -> None: ...

    async def collective_rpc(self, method: str, *, kwargs: Any = None) -> list[Any]:
        self.num_loaded += method == "reload_weights"
        return []

    async def update_weight_version(self, version: str) -> None:
        self.version = version

    async def get_weight_version(self) -> str:
        return self.version

    async def compute_weight_checksums(self) -> list[dict[str, str]]:
        return [{"tensor": str(self.num_loaded)}]


async def agree(_: Scope, receive: Receive, send: Send) -> None:
    """Answer a canary with the log-probabilities that the trainer wrote down."""
    tokens = json.loads((await receive())["body"])["prompt"]
    known = {
        str(c["prompt_token_ids"] + c["continuation_token_ids"]): c["logprobs"]
        for c in small_checkpoint.CANARIES
    }
    logprobs = [0.0] * len(tokens)
    logprobs[-2:] = known[str(tokens)]
    positions = [{str(t): {"logprob": p}} for t, p in zip(tokens, logprobs, strict=True)]
    body = json.dumps({"choices": [{"prompt_logprobs": positions}]}).encode()
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Trial:
    """A replica that serves m0, and its version m1, which is damaged again and again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        small_checkpoint.publish(root, "m0", seed=0)
        manifest = small_checkpoint.publish(root, "m1", seed=1, parent="m0")
        self.committed = checkpoints.digest_of(manifest)
        self._sound = root / ".sound"
        shutil.copytree(root / "m1", self._sound)
        self.engine = CredulousEngine()
        self.app = SimpleNamespace(state=SimpleNamespace(engine_client=self.engine))

    async def activate(self, committed: str | None) -> str | None:
        """Returns what the refusal said; None where m1 was served, or loaded and then refused."""
        swapper = Swapper(agree, Admission(), self.root, "m0")
        loaded = self.engine.num_loaded
        try:
            await swapper.activate(self.app, "m1", committed)
        except RewardloopError as error:
            return error.message if self.engine.num_loaded == loaded else None
        return None

    def restore(self) -> None:
        for path in (self.root / "m1", outside(self.root / "m1")):
            if path.is_symlink() or path.is_file():
                path.unlink()
            else:
                shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(self._sound, self.root / "m1")

    async def damaged(self, kind: str, seed: int, committed: str | None) -> str | None:
        self.restore()
        KINDS[kind].apply(self.root / "m1", Random(f"{kind} {seed}"))
        return await self.activate(committed)


async def run(num_damaged: int = NUM_DAMAGED) -> dict[str, Any]:
    """Every kind in turn, with what Postgres says, and without where the files show it."""
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Path(folder))
        served: Counter[str] = Counter()
        unproven: Counter[str] = Counter()
        for seed in range(num_damaged):
            kind = list(KINDS)[seed % len(KINDS)]
            served[kind] += await trial.damaged(kind, seed, trial.committed) is None
            if KINDS[kind].seen_alone:
                unproven[kind] += await trial.damaged(kind, seed, None) is None
        trial.restore()
        assert await trial.activate(trial.committed) is None, "an undamaged one must be served"
    return {
        "damaged_checkpoints": num_damaged,
        "kinds_of_damage": len(KINDS),
        "corrupt_checkpoints_served": sum(served.values()),
        "served_without_postgres": sum(unproven.values()),
        "served_kinds": sorted(+served | +unproven),
    }


if __name__ == "__main__":
    found = asyncio.run(run())
    print(json.dumps(found))
    sys.exit(bool(found["corrupt_checkpoints_served"] or found["served_without_postgres"]))
