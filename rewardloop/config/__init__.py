"""`Settings`: where things are and the secrets. `RunConfig`: the experiment.

Settings come from the environment (`REWARDLOOP_*`) and differ from machine to
machine; a RunConfig comes from a file or a request, and its resolved form is
stored with the run, and refuses unknown keys. A file holds each subject.
"""

from rewardloop.config.judging import Health, Judging, Rollout, Sampling
from rewardloop.config.pairing import (
    Anchored,
    BestWorst,
    Consistency,
    LengthControl,
    Pairing,
    PairPolicy,
    SeveralPairs,
)
from rewardloop.config.prompts import LANGUAGES, PromptSource, SelfInstruct
from rewardloop.config.rubrics import Rubric, RubricTemplate
from rewardloop.config.run import (
    Bootstrap,
    Eft,
    Evaluation,
    RunConfig,
    parse_run_config,
    stored_run_config,
)
from rewardloop.config.settings import NEEDS, SECRETS, Settings, load_settings
from rewardloop.config.training import (
    DpoLoss,
    DpoWithLikelihood,
    EarlyStopping,
    FullWeights,
    Lora,
    Optimisation,
    SupervisedTraining,
    Training,
    WinnersOnly,
)

__all__ = [
    "LANGUAGES",
    "NEEDS",
    "SECRETS",
    "Anchored",
    "BestWorst",
    "Bootstrap",
    "Consistency",
    "DpoLoss",
    "DpoWithLikelihood",
    "EarlyStopping",
    "Eft",
    "Evaluation",
    "FullWeights",
    "Health",
    "Judging",
    "LengthControl",
    "Lora",
    "Optimisation",
    "PairPolicy",
    "Pairing",
    "PromptSource",
    "Rollout",
    "Rubric",
    "RubricTemplate",
    "RunConfig",
    "Sampling",
    "SelfInstruct",
    "Settings",
    "SeveralPairs",
    "SupervisedTraining",
    "Training",
    "WinnersOnly",
    "load_settings",
    "parse_run_config",
    "stored_run_config",
]
