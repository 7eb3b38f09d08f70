"""A training that saves its whole state, and goes on from it bit for bit.

transformers' own checkpoints hold weights, optimizer, schedule, random generators and the place
in the data; beside them stand here what early stopping remembers, and what says that the state
is whole. What transformers does not bring back is brought back here: TRL's count of tokens, and
the mean loss of the whole training, which it takes over the steps since the restart.

Invariants: a state is saved behind a step's metrics, never with weights that are not finite; a
state that cannot be written costs nothing but itself, and is told.
"""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from transformers import Trainer, TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from rewardloop.errors import TrainingDiverged
from services.trainer import faults, finite
from services.trainer.child import report
from services.trainer.early_stopping import EarlyStopping
from services.trainer.saved_state import States

logger = logging.getLogger("rewardloop.trainer")

BYTES_OF_A_WEIGHT = 4
STATE_WEIGHTS = 3
"""A state holds each trained weight, and AdamW's two moments of it."""


class Stopped(Exception):
    """The training stopped because it was asked to."""


def states_of(task: dict[str, Any], channel: TextIO) -> States | None:
    """The task's saved states; None where it names no folder for them."""
    if not task.get("state"):
        return None
    states = States(Path(task["state"]))
    if differing := states.claim(task):
        report(
            channel,
            began_anew="the saved state is of another training, which differs in: "
            + ", ".join(differing),
        )
    return states


class StateKeeper(TrainerCallback):  # type: ignore[misc]
    """Says when a state is due, and makes what transformers writes a state."""

    def __init__(
        self,
        states: States,
        every_num_steps: int | None,
        early_stopping: EarlyStopping | None,
        channel: TextIO,
    ) -> None:
        self.states = states
        self._every = every_num_steps
        self._early_stopping = early_stopping
        self._channel = channel
        self._saved_step: int | None = None
        self._num_not_saved = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        finished = self._is_finished(state, control)
        due = self._every is not None and (finished or state.global_step % self._every == 0)
        control.should_save = due or self.states.stop_wanted

    def _is_finished(self, state: Any, control: Any) -> bool:
        return bool(control.should_training_stop or state.global_step >= state.max_steps)

    def save(self, trainer: Any, write: Callable[[], None]) -> None:
        """Called where transformers saves: at the end of a step, and again at an epoch's end.

        Raises:
            Stopped: it was asked to stop.
            TrainingDiverged: a weight is not finite.
        """
        step = trainer.state.global_step
        if step != self._saved_step:
            finite.require_weights(trainer.model, step)
            self._try_to_save(trainer, write, step)
            self._saved_step = step
        if self.states.stop_wanted and not self._is_finished(trainer.state, trainer.control):
            raise Stopped

    def _try_to_save(self, trainer: Any, write: Callable[[], None], step: int) -> None:
        written = Path(trainer.args.output_dir) / f"checkpoint-{step}"
        shutil.rmtree(written, ignore_errors=True)
        try:
            self._require_room(trainer.model)
            write()
            if self._early_stopping is not None:
                self._early_stopping.write_to(written)
            self.states.add(written, step, self._is_finished(trainer.state, trainer.control))
        except Exception as error:
            if not isinstance(error, OSError) and not faults.is_full_disk(error):
                raise
            shutil.rmtree(written, ignore_errors=True)
            self._num_not_saved += 1
            report(
                self._channel,
                num_states_not_saved=self._num_not_saved,
                state_not_saved=f"step {step}: {error}",
            )
        else:
            report(self._channel, saved_step=step)

    def _require_room(self, model: Any) -> None:
        """The checkpoint comes first: a state takes no room that its files will need."""
        num_trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        of_state = STATE_WEIGHTS + (1 if self._early_stopping is not None else 0)
        needed = BYTES_OF_A_WEIGHT * num_trained * (of_state + 1)
        folder = self.states.folder
        if shutil.disk_usage(folder).free < needed:
            self.states.keep(1)
        if (free := shutil.disk_usage(folder).free) < needed:
            raise OSError(
                f"no room for a state under {folder.parent}: {needed / 2**20:.0f} MiB with the "
                f"checkpoint, {free / 2**20:.0f} MiB free"
            )


class Resumable:
    """To be put before TRL's trainer among the bases of a class."""

    keeper: StateKeeper | None = None

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().training_step(*args, **kwargs)  # type: ignore[misc]
        finite.require_number(loss, "loss", self._step)
        return loss

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        """Asked for between the backward pass and the optimizer's step."""
        norm = super()._get_grad_norm(*args, **kwargs)  # type: ignore[misc]
        finite.require_number(norm, "grad_norm", self._step)
        return norm

    @property
    def _step(self) -> int:
        """The optimizer step that is being taken."""
        return int(self.state.global_step) + 1  # type: ignore[attr-defined]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """transformers' own: TRL's would write a model card first."""
        if self.keeper is not None:
            self.keeper.save(self, lambda: Trainer._save_checkpoint(self, model, trial))


def prepare(trainer: Any, task: dict[str, Any], states: States | None, channel: TextIO) -> None:
    """Let the trainer keep its states, behind its other callbacks."""
    if states is None:
        return
    trainer.keeper = StateKeeper(
        states,
        task["config"].get("save_every_steps"),
        _early_stopping(trainer),
        channel,
    )
    trainer.add_callback(trainer.keeper)


def _early_stopping(trainer: Any) -> EarlyStopping | None:
    callbacks = trainer.callback_handler.callbacks
    return next((one for one in callbacks if isinstance(one, EarlyStopping)), None)


def run(trainer: Any, channel: TextIO) -> bool:
    """Train from the start or from the newest state; returns whether the training is over.

    Raises:
        TrainingDiverged: its metrics are reported before.
    """
    try:
        _train(trainer, channel)
        finite.require_weights(trainer.model, int(trainer.state.global_step))
    except Stopped:
        saved = trainer.keeper.states.listed()
        report(channel, paused_at=saved[0].step if saved else 0)
        return False
    except TrainingDiverged as error:
        if "value" in error.context:
            metrics = {error.context["quantity"]: float(error.context["value"])}
            report(channel, step=error.context["step"], metrics=metrics)
        raise
    return True


def _train(trainer: Any, channel: TextIO) -> None:
    keeper = trainer.keeper
    saved = keeper.states.newest() if keeper is not None else None
    if keeper is not None and keeper.states.stop_wanted:
        raise Stopped
    if keeper is not None:
        damaged = [s for s in keeper.states.listed() if saved is None or s.step > saved.step]
        if damaged:
            report(channel, num_damaged_states=len(damaged))
    if saved is None:
        trainer.train()
        return
    report(channel, resumed_at=saved.step)
    if saved.finished:
        trainer._load_from_checkpoint(str(saved.folder))
        trainer.state.global_step = saved.step
        return
    if (early_stopping := _early_stopping(trainer)) is not None:
        early_stopping.read_from(saved.folder)
    trainer._total_train_tokens = _num_tokens(saved.folder)
    trainer.train(resume_from_checkpoint=str(saved.folder))


def _num_tokens(folder: Path) -> int:
    """Tokens that were trained on up to the state."""
    state = TrainerState.load_from_json(str(folder / TRAINER_STATE_NAME))
    return int(
        next((row["num_tokens"] for row in state.log_history[::-1] if "num_tokens" in row), 0)
    )
