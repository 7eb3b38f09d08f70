"""What vLLM is started with."""

from pathlib import Path

import pytest

from rewardloop.errors import InvalidInput
from services.generator.__main__ import command, require_the_checkpoints_own


def test_a_models_own_sampling_defaults_do_not_apply() -> None:
    """The run's config says how is sampled, and nothing else does."""
    words = command(Path("/checkpoints/m1"), "4096", [])
    assert words[words.index("--generation-config") + 1] == "vllm"
    assert words[words.index("--model") + 1] == "/checkpoints/m1"
    assert words[words.index("--max-model-len") + 1] == "4096"
    assert words[words.index("--middleware") + 1] == "services.generator.gate.Gate"
    extension = words[words.index("--worker-extension-cls") + 1]
    assert extension == "services.generator.worker_extension.PacksSharedHeads"


def test_options_of_the_caller_come_last_and_so_win() -> None:
    words = command(Path("m1"), "2048", ["--port", "8001", "--generation-config", "auto"])
    assert words[-4:] == ["--port", "8001", "--generation-config", "auto"]


@pytest.mark.parametrize(
    "options",
    [
        ["--chat-template", "x.jinja"],
        ["--chat_template=x.jinja"],
        ["--port", "1", "--tokenizer=other"],
        ["--trust-request-chat-template"],
        ["--default-chat-template-kwargs", "{}"],
    ],
)
def test_the_prompt_is_the_checkpoints_own_matter(options: list[str]) -> None:
    with pytest.raises(InvalidInput, match="the checkpoint's own tokenizer and chat template"):
        require_the_checkpoints_own(options)


def test_other_options_are_vllms() -> None:
    require_the_checkpoints_own(["--port", "8001", "--tokenizer-pool-size", "2", "tokenizer"])
