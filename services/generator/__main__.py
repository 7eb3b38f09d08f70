"""Start vLLM's OpenAI server on the version that is being served, behind the gate.

    python -m services.generator --host 127.0.0.1 --port 8001 [vLLM's own options]

An engine that restarts loads the active version from Postgres, not the base.
This process becomes the server (exec), so signals and exit codes are vLLM's.
"""

import argparse
import os
import sys
from pathlib import Path

from rewardloop.config import load_settings
from rewardloop.errors import InvalidInput
from rewardloop.process.exits import known_errors_told
from rewardloop.servable import require_model
from services.generator import serving
from services.generator.launch import initial_checkpoint
from services.generator.machine import cpu_environment, has_gpu

CPU_OPTIONS = ["--dtype", "bfloat16", "--enforce-eager"]
OF_THE_CHECKPOINT = (
    "--chat-template",
    "--chat-template-content-format",
    "--default-chat-template-kwargs",
    "--tokenizer",
    "--tokenizer-mode",
    "--trust-request-chat-template",
)
"""vLLM's options that would show the engine another prompt than the trainer."""

LOGGING = Path(__file__).with_name("logging.json")
"""Our log format, for vLLM's processes."""
LOGGING_VARIABLE = "VLLM_LOGGING_CONFIG_PATH"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, add_help=False)
    parser.add_argument("--max-model-len", default="2048")
    options, vllm_options = parser.parse_known_args()
    with known_errors_told():
        require_the_checkpoints_own(vllm_options)
        settings = load_settings("generator")
        folder = initial_checkpoint(settings)
        require_model(folder)
    vllm_options = [*serving.options(settings, folder), *vllm_options]
    if not has_gpu():
        os.environ.update(cpu_environment())
        vllm_options = [*CPU_OPTIONS, *vllm_options]
    os.environ.setdefault(LOGGING_VARIABLE, str(LOGGING))
    os.execv(sys.executable, command(folder, options.max_model_len, vllm_options))


def require_the_checkpoints_own(vllm_options: list[str]) -> None:
    """
    Raises:
        InvalidInput: an option would replace the checkpoint's tokenizer or chat template.
    """
    for option in vllm_options:
        name = option.partition("=")[0].replace("_", "-")
        if name in OF_THE_CHECKPOINT:
            raise InvalidInput(
                f"{name} is not taken here: engine and trainer must share the checkpoint's own "
                "tokenizer and chat template; give a base model its template when you import it"
            )


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
        "--worker-extension-cls",
        "services.generator.worker_extension.PacksSharedHeads",
        "--uvicorn-log-level",
        "warning",
        *vllm_options,
    ]


if __name__ == "__main__":
    main()
