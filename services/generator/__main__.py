"""Start vLLM's OpenAI server on the version that is being served, behind the gate.

    python -m services.generator --host 127.0.0.1 --port 8001 [vLLM's own options]

An engine that restarts loads the active version from Postgres, not the base.
This process becomes the server (exec), so signals and exit codes are vLLM's.
"""

import argparse
import asyncio
import os
import sys
from pathlib import Path

from rewardloop import checkpoints
from rewardloop.config import Settings, load_settings
from rewardloop.store import Store, versions
from services.generator import gate

CPU_OPTIONS = ["--dtype", "bfloat16", "--enforce-eager"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, add_help=False)
    parser.add_argument("--max-model-len", default="2048")
    options, vllm_options = parser.parse_known_args()
    settings = load_settings()
    version = asyncio.run(serving_version(settings))
    folder = checkpoints.folder_of(settings.checkpoint_root, version)
    checkpoints.verify(folder)
    os.environ[gate.INITIAL_VERSION] = version
    if not _has_gpu():
        os.environ.update(cpu_environment())
        vllm_options = [*CPU_OPTIONS, *vllm_options]
    os.execv(sys.executable, command(folder, options.max_model_len, vllm_options))


def command(folder: Path, max_model_len: str, vllm_options: list[str]) -> list[str]:
    """vLLM's own command line; of an option that is given twice the last one counts."""
    return [
        sys.executable,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        str(folder),
        "--served-model-name",
        "policy",
        "--max-model-len",
        max_model_len,
        # Else top_k, repetition_penalty and the like of the model's generation_config.json
        # would apply to every request that does not name them, unseen in the run's config.
        # The ids there that end a text are read all the same.
        "--generation-config",
        "vllm",
        "--middleware",
        "services.generator.gate.Gate",
        "--uvicorn-log-level",
        "warning",
        *vllm_options,
    ]


async def serving_version(settings: Settings) -> str:
    """The version that a generator that starts now must load."""
    store = Store(settings.database_url.get_secret_value())
    async with store.transaction() as session:
        version = await versions.require_serving(session)
    await store.close()
    return version


def _has_gpu() -> bool:
    return os.path.exists("/dev/nvidiactl") or os.path.exists("/dev/kfd")


def cpu_environment() -> dict[str, str]:
    """Every core bound explicitly: left alone, vLLM's CPU build keeps torch on one thread.

    Values that the environment sets already win.
    """
    cores = sorted(os.sched_getaffinity(0))
    defaults = {
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        "OMP_NUM_THREADS": str(len(cores)),
        "VLLM_CPU_KVCACHE_SPACE": "2",
    }
    return {name: os.environ.get(name, value) for name, value in defaults.items()}


if __name__ == "__main__":
    main()
