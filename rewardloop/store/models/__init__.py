"""The tables. What must never be wrong is a key or a check here.

runs 1--n iterations 1--n iteration_prompts n--1 prompts
iteration_prompts 1--n responses 1--n judgements
iterations 1--n preference_pairs, 1--n training_jobs 1--n training_metrics
prompts 1--n ranked_responses; iterations 1--n assessments 1--n ranked_judgements
iterations 1--n candidate_prompts (self-instruct), 1--n ift_examples, 1--n eft_examples
evaluations 1--n comparisons; evaluation_answers belong to a version and a prompt
iterations or evaluations 1--n failed_items
model_versions: parent -> child; serving names the one that is served
api_keys and replicas stand alone
"""

from rewardloop.store.models.access import ApiKey
from rewardloop.store.models.base import Base
from rewardloop.store.models.method import (
    Assessment,
    CandidatePrompt,
    Comparison,
    EftExample,
    Evaluation,
    EvaluationAnswer,
    FailedItem,
    IftExample,
    RankedJudgement,
    RankedResponse,
    RankedSplit,
)
from rewardloop.store.models.replicas import Replica
from rewardloop.store.models.rollouts import (
    IterationPrompt,
    Judgement,
    PreferencePairRow,
    Prompt,
    Response,
    TrainingJob,
    TrainingMetric,
)
from rewardloop.store.models.runs import (
    Event,
    IdempotencyKey,
    Iteration,
    ModelVersion,
    OutboxMessage,
    PhaseSpan,
    Run,
    Serving,
)

__all__ = [
    "ApiKey",
    "Assessment",
    "Base",
    "CandidatePrompt",
    "Comparison",
    "EftExample",
    "Evaluation",
    "EvaluationAnswer",
    "Event",
    "FailedItem",
    "IdempotencyKey",
    "IftExample",
    "Iteration",
    "IterationPrompt",
    "Judgement",
    "ModelVersion",
    "OutboxMessage",
    "PhaseSpan",
    "PreferencePairRow",
    "Prompt",
    "RankedJudgement",
    "RankedResponse",
    "RankedSplit",
    "Replica",
    "Response",
    "Run",
    "Serving",
    "TrainingJob",
    "TrainingMetric",
]
