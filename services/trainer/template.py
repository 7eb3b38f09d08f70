"""The chat template of a model that is to be published or trained: given, checked, mended.

Invariant: a base that is published has a template that opens and ends turns, and an engine
that loads it stops where its turns end. What was mended or found is returned, to be told.
"""

from pathlib import Path
from typing import Any

from rewardloop.chat_checks import Trouble, check_template

CHATML = "chatml"
CHATML_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' "
    "+ message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML_MARKS = ("<|im_start|>", "<|im_end|>")


def give(model: Any, tokenizer: Any, template: str | None) -> None:
    """Give the tokenizer a template: `chatml`, a file's path, or its own (None).

    ChatML's two marks become tokens where the tokenizer has none for them; their embeddings
    start as the others' mean.

    Raises:
        ValueError: there is no such file.
    """
    if template is None:
        return
    if template != CHATML:
        path = Path(template)
        if not path.is_file():
            raise ValueError(f"--chat-template: {template!r} is neither a file nor 'chatml'")
        tokenizer.chat_template = path.read_text()
        return
    tokenizer.chat_template = CHATML_TEMPLATE
    tokenizer.add_special_tokens(
        {"additional_special_tokens": list(CHATML_MARKS)}, replace_extra_special_tokens=False
    )
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))


FATAL = frozenset(
    {
        Trouble.NO_TEMPLATE,
        Trouble.REFUSES_USER,
        Trouble.HIDES_TURNS,
        Trouble.NO_END,
        Trouble.MARKS_BEFORE_ANSWERS,
    }
)
FATAL_IN_TRAINING = FATAL - {Trouble.NO_END, Trouble.MARKS_BEFORE_ANSWERS}
"""A version that was published before the checks is trained on, and told."""
FATAL_FOR_ADAPTERS = FATAL_IN_TRAINING | {Trouble.END_IS_NO_STOP}
"""An adapter has its base's generation config, so that a mended one would be lost."""


_MENDS = {
    Trouble.END_IS_NO_STOP: "; import the base again, which mends that, or train all weights "
    "(weights: {kind: full}) once"
}


def check_and_mend(model: Any, tokenizer: Any, fatal: frozenset[Trouble] = FATAL) -> list[str]:
    """Check the template, let the engine stop where turns end; returns what is to be told.

    Raises:
        ValueError: the template is of no use to a chat model.
    """
    told = []
    for problem in check_template(tokenizer, stop_ids(model, tokenizer)):
        if problem.kind in fatal:
            raise ValueError(problem.text + _MENDS.get(problem.kind, ""))
        mended = ""
        if problem.kind is Trouble.END_IS_NO_STOP:
            assert problem.add_stop_id is not None
            _stop_at(model, tokenizer, problem.add_stop_id)
            mended = "; generation_config.json now names it too (eos_token_id)"
        told.append(problem.text + mended)
    return told


def stop_ids(model: Any, tokenizer: Any) -> set[int]:
    """The ids at which an engine stops: the generation config's and the tokenizer's own end."""
    named = model.generation_config.eos_token_id
    several = named if isinstance(named, (list, tuple)) else [named]
    return {int(token) for token in (*several, tokenizer.eos_token_id) if token is not None}


def _stop_at(model: Any, tokenizer: Any, token: int) -> None:
    model.generation_config.eos_token_id = sorted({*stop_ids(model, tokenizer), token})
