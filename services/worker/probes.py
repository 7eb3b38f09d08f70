"""Small requests that tell whether a server does its part.

They have the form of the real ones, with as many choices, so that a server that answers them
could have answered those.
"""

from rewardloop.clients.generator import GeneratorClient
from rewardloop.clients.judge import JudgeClient
from rewardloop.config import Judging, Sampling, SelfInstruct
from rewardloop.records import JudgementMode, Message, Sample

GENERATOR = "generator"
JUDGE = "judge"
PROMPT_MODEL = "prompt model"

QUESTION: tuple[Message, ...] = ({"role": "user", "content": "Say hello."},)
ANSWER = "Hello."


async def probe_generator(generator: GeneratorClient, sampling: Sampling) -> list[Sample]:
    small = sampling.model_copy(update={"max_tokens": 1})
    return await generator.sample(QUESTION, small, sampling.num_samples)


async def probe_judge(judge: JudgeClient, judging: Judging) -> None:
    small = judging.model_copy(update={"max_tokens": 8, "max_reasks": 0})
    await judge.judge(QUESTION, ANSWER, small, judging.num_judgements)


async def probe_comparing(judge: JudgeClient, mode: JudgementMode) -> None:
    await judge.compare(QUESTION, ANSWER, "Good day.", mode=mode, max_tokens=8)


async def probe_writing(model: GeneratorClient, how: SelfInstruct, stop: tuple[str, ...]) -> None:
    await model.complete("Task 1:", how.model_copy(update={"max_tokens": 1}), stop)
