"""Stops a training at the first loss, gradient norm or saved tensor that is not finite.

transformers would log such a loss as the mean of those before it (`logging_nan_inf_filter`)
and go on; the weights are lost from then on, and no later step brings them back.
"""

import math
from typing import Any

import torch

from rewardloop.errors import TrainingDiverged

MEND = "lower this training's learning_rate, or max_gradient_norm where it is high or null"


def require_number(value: Any, quantity: str, step: int) -> None:
    """
    Raises:
        TrainingDiverged: `value`, of the optimizer step `step`, is NaN or infinite.
    """
    number = float(value)
    if not math.isfinite(number):
        raise TrainingDiverged(
            f"the training diverged: at step {step} the {quantity} is {number}; {MEND}",
            step=step,
            quantity=quantity,
            value=str(number),
        )


def require_weights(model: Any, step: int | None = None) -> None:
    """
    Raises:
        TrainingDiverged: a tensor of the model that was trained has a value that is not finite.
        ValueError: the same of a model that was not trained, where there is no step.
    """
    for name, weight in model.named_parameters():
        if torch.isfinite(weight).all():
            continue
        if step is None:
            raise ValueError(f"the weights are damaged: {name} has values that are not finite")
        raise TrainingDiverged(
            f"the training diverged: after step {step} the tensor {name} has values that are "
            f"not finite; {MEND}",
            step=step,
            quantity=name,
        )
