"""A forward pass that computes no more than a loss over answers asks for.

TRL's trainers call the model with `fused_lm_head=True` and get back numbers for each token of
an answer. This puts a pass of the same inputs and outputs before TRL's: a pair's prompt goes
through the model once, padding is cut, and only tokens of answers are projected on to the
vocabulary: by TRL's own kernel on GPUs, and by the model's own head and `answer_logps` elsewhere.

Invariant: what it gives back is what TRL's pass gives, up to rounding.
"""

import functools
import inspect
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from trl.trainer.utils import FusedCausalLMOutput

from services.trainer import answer_logps, layout

MOST_APART, MOST_APART_HALF = 1e-3, 0.1
"""Nats a token that rounding may make, in float32 and in 16 bits."""
OUTPUTS = ("log_probs", "entropy", "mean_logits", "is_top1")


def install(model: Any, shares_prompts: bool = False) -> None:
    """Let the model be called so; TRL's `add_fused_lm_head` comes before."""
    model = _unwrapped(model)
    by_trl = model.forward

    @functools.wraps(type(model).forward)
    def forward(self: Any, *args: Any, fused_lm_head: bool = False, **inputs: Any) -> Any:
        if not fused_lm_head:
            return by_trl(*args, **inputs)
        rows = _laid_out(self, inputs, shares_prompts)
        score = _by_kernel if rows.ids_BT.is_cuda else _by_head
        return _per_sequence(score(self, by_trl, rows), inputs["labels"][:, 1:])

    model.forward = types.MethodType(forward, model)


def why_not_shared(model: Any, pair: dict[str, torch.Tensor]) -> str | None:
    """What keeps a model from taking two answers behind one prompt; None where nothing does.

    A shared row needs a mask and positions of our own, which attention alone understands, and
    which must be the same in each layer. Where the config says nothing against it, the pair's
    log-probabilities are computed both ways.
    """
    model = _unwrapped(model)
    return _layers_against(model) or _numbers_against(model, pair)


def _numbers_against(model: Any, pair: dict[str, torch.Tensor]) -> str | None:
    ways = []
    for lay_out in (layout.shared, layout.alone):
        rows = lay_out(pair["input_ids"], pair["attention_mask"], pair["labels"])
        score = _by_kernel if rows.ids_BT.is_cuda else _by_head
        with torch.no_grad():
            ways.append(score(model, model.forward, rows)["log_probs"])
    apart = float((ways[0] - ways[1]).abs().mean())
    if apart <= (MOST_APART if model.dtype == torch.float32 else MOST_APART_HALF):
        return None
    return f"its log-probabilities would differ, by {apart:.2g} nats a token"


def _layers_against(model: Any) -> str | None:
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    windowed = not kinds and getattr(config, "sliding_window", None) is not None
    if config._attn_implementation not in ("sdpa", "eager"):
        return f"its attention is {config._attn_implementation}"
    if other := (kinds - {"full_attention"}) or ({"sliding_attention"} if windowed else set()):
        return f"it has layers of {', '.join(sorted(other))}"
    if getattr(config, "output_router_logits", False):
        return "its routers are trained on the prompts of each answer"
    if "position_ids" not in inspect.signature(type(model).forward).parameters:
        return "it takes no positions"
    return None


def _unwrapped(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _laid_out(model: Any, inputs: dict[str, Any], shares_prompts: bool) -> layout.Layout:
    ids, attended, labels = (inputs[name] for name in ("input_ids", "attention_mask", "labels"))
    config = model.config.get_text_config()
    per_layer = config.hidden_size + 1.5 * (getattr(config, "intermediate_size", None) or 0)
    if shares_prompts and layout.shared_costs_less(attended, labels, per_layer):
        return layout.shared(ids, attended, labels)
    return layout.alone(ids, attended, labels)


def _by_kernel(model: Any, by_trl: Any, rows: layout.Layout) -> dict[str, torch.Tensor]:
    found = by_trl(**_inputs(rows), shift_labels=rows.labels_BT, fused_lm_head=True)
    made = {name: getattr(found, name) for name in OUTPUTS}  # TRL's SFT asks for fewer
    return {n: values.flatten()[rows.places_N] for n, values in made.items() if values is not None}


def _by_head(model: Any, by_trl: Any, rows: layout.Layout) -> dict[str, torch.Tensor]:
    with _projecting(model.get_output_embeddings(), rows.places_N):
        logits_NV = by_trl(**_inputs(rows)).logits
    found = answer_logps.score(logits_NV, rows.targets_N)
    return {name: getattr(found, name) for name in OUTPUTS}


def _inputs(rows: layout.Layout) -> dict[str, Any]:
    return {
        "input_ids": rows.ids_BT,
        "position_ids": rows.positions_BT,
        "attention_mask": rows.mask_B1TT,
        "use_cache": False,
    }


@contextmanager
def _projecting(head: torch.nn.Module, places_N: torch.Tensor) -> Iterator[None]:
    """While the body runs, the head sees the hidden states of these places alone."""

    def chosen(_: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return args[0].flatten(0, -2)[places_N]

    handle = head.register_forward_pre_hook(chosen)
    try:
        yield
    finally:
        handle.remove()


def _per_sequence(found: dict[str, torch.Tensor], labels_ST: torch.Tensor) -> FusedCausalLMOutput:
    """TRL's form: a number for each token but a sequence's first, 0 where it is no answer's."""
    is_scored = labels_ST != -100
    spread = {
        name: values.new_zeros(is_scored.shape).masked_scatter(is_scored, values)
        for name, values in found.items()
    }
    return FusedCausalLMOutput(label_mask=is_scored, **spread)
