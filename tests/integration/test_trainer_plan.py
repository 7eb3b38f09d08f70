"""What the trainer is told to do, and how it answers a child's checks."""

from pathlib import Path
from typing import Any, ClassVar, Self
from uuid import UUID

import pytest
from pydantic import SecretStr

from rewardloop.config import EarlyStopping, Settings
from rewardloop.errors import TrainingFailed
from rewardloop.method import rubric
from rewardloop.records import (
    JudgementMode,
    Message,
    Preference,
    PromptRecord,
    Stage,
    UnscoredReason,
    WrittenComparison,
)
from rewardloop.store import prompts, training
from services.trainer import validation
from services.trainer.plan import DPO, SFT, Plan, plan_of
from tests.integration.conftest import ranked_prompt

TOPICS = ("tides", "bread", "chess", "rivers", "clocks", "bees")


@pytest.fixture
async def ready(world: Any) -> Any:
    await world.with_base()
    await world.add_prompts("one", "two", "three")
    return world


async def plan(world: Any, iteration_id: UUID, stage: Stage = Stage.MODEL) -> Plan:
    async with world.store.transaction() as session:
        return await plan_of(session, await training.of(session, iteration_id, stage))


async def test_the_stages_of_a_bootstrap(ready: Any) -> None:
    ready.serve()
    ranked = (ranked_prompt(f"about {t}", f"best of {t}", "poor") for t in TOPICS)
    await ready.add_ranked(*ranked)
    # A prompt with a human answer that nobody ranked is an IFT example too.
    unranked = PromptRecord(({"role": "user", "content": "about ferns"},), "best of ferns", "test")
    async with ready.store.transaction() as session:
        await prompts.add(session, "ranked", [unranked])
    bootstrap, _ = await ready.new_run(
        seed=5,
        bootstrap={
            "ift": {"num_epochs": 2, "weights": {"kind": "lora"}},
            "ift_and_eft": {"learning_rate": 3e-6},
        },
    )
    baseline, version = await ready.bootstrap(bootstrap)
    iteration = await ready.iteration(bootstrap)
    first, second = [await plan(ready, bootstrap, stage) for stage in Stage]
    assert (first.version, second.version) == (baseline, version)
    for each in (first, second):
        assert (each.child, each.kind, each.parent) == (SFT, "sft", "base")
        assert (each.task["seed"], each.task["schedule"]) == (5, "cosine")
        assert each.about["num_examples"] == len(each.task["examples"])
        assert each.about["run_id"] == str(iteration.run_id)
        assert not {"pairs", "early_stopping"} & set(each.task)
    assert first.task["config"]["num_epochs"] == 2
    assert first.task["config"]["weights"]["kind"] == "lora"
    assert second.task["config"]["learning_rate"] == 3e-6
    assert second.task["config"]["weights"]["kind"] == "full"

    ift = first.task["examples"]
    assert len(ift) == 3  # of 6 ranked ones 2 are held out and 2 are judged for EFT
    assert ift[-1]["completion"] == "best of ferns"
    for example in ift:
        topic = example["prompt"][0]["content"].removeprefix("about ")
        assert example == {
            "prompt": [{"role": "user", "content": f"about {topic}"}],
            "completion": f"best of {topic}",
            "kind": "ift",
        }
    assert second.task["examples"][:3] == ift
    eft = second.task["examples"][3:]
    assert len(eft) == iteration.report["eft"]["num_kept"] > 0
    rows = await ready.rows(
        "SELECT p.messages, r.text, j.raw_text, j.nonce FROM eft_examples e"
        " JOIN ranked_judgements j ON j.id = e.ranked_judgement_id"
        " JOIN ranked_responses r ON r.id = j.ranked_response_id"
        " JOIN prompts p ON p.id = r.prompt_id ORDER BY j.id"
    )
    for example, row in zip(eft, rows, strict=True):
        answer: Message = {"role": "assistant", "content": row["text"]}
        assert example == {
            "prompt": rubric.render(
                [*row["messages"], answer], JudgementMode.FREE, nonce=row["nonce"]
            ),
            "completion": row["raw_text"],
            "kind": "eft",
        }


async def test_eft_examples_teach_free_judging_whatever_mode_wrote_them(ready: Any) -> None:
    ready.serve()
    await ready.add_ranked(*(ranked_prompt(t, "good", "poor") for t in TOPICS))
    bootstrap, _ = await ready.new_run(bootstrap={"eft": {"judging": {"mode": "constrained"}}})
    await ready.bootstrap(bootstrap)
    modes = await ready.rows("SELECT mode FROM assessments WHERE purpose = 'eft'")
    assert modes == [{"mode": "constrained"}]
    made = await plan(ready, bootstrap)
    (last_turn,) = made.task["examples"][-1]["prompt"]
    assert "at most 100 words" in last_turn["content"]  # the constrained judge is given 12


async def test_an_eft_example_ends_with_its_score(ready: Any) -> None:
    """A judge may go on behind it, and be cut in the middle of a sentence."""
    ready.serve()
    await ready.add_ranked(*(ranked_prompt(t, "good", "poor") for t in TOPICS))
    bootstrap, _ = await ready.new_run(bootstrap={})
    await ready.bootstrap(bootstrap)
    before = (await plan(ready, bootstrap)).task["examples"]
    await ready.rows(
        "UPDATE ranked_judgements SET raw_text = raw_text || E'\\n\\nNow the user' RETURNING 1"
    )
    assert (await plan(ready, bootstrap)).task["examples"] == before


SCORES = {1: [[1.0], [5.0], [3.0]], 2: [[4.0], [2.0]]}
"""Best against worst: 1 and 0 of prompt 1, 0 and 1 of prompt 2."""


async def test_dpo_on_pairs(ready: Any) -> None:
    (only,) = await ready.new_run(seed=5, training={"beta": 0.3})
    await ready.judged(only, SCORES)
    await ready.advance(only)
    made = await plan(ready, only)
    run_id = (await ready.iteration(only)).run_id
    assert (made.child, made.kind, made.parent) == (DPO, "dpo", "base")
    assert made.version == f"run-{run_id.hex[:12]}-m2"
    assert made.task["pairs"][0] == {
        "prompt": [{"role": "user", "content": "one"}],
        "chosen": [{"role": "assistant", "content": "answer 1 to prompt 1 and on"}],
        "rejected": [{"role": "assistant", "content": "answer 0 to prompt 1"}],
        "chosen_is_cut": False,
        "rejected_is_cut": False,
    }
    assert len(made.task["pairs"]) == made.about["num_pairs"] == 2
    assert (made.task["config"]["beta"], made.task["config"]["loss"]) == (0.3, {"kind": "dpo"})
    assert (made.task["seed"], made.task["early_stopping"]) == (6, None)
    assert "early_stopping" not in made.task["config"]


async def cut(world: Any, *texts: str) -> None:
    """As if `sampling.max_tokens` had cut these responses."""
    for answer in texts:
        await world.rows(
            "UPDATE responses SET finish_reason = 'length' WHERE text = :t RETURNING 1", t=answer
        )


async def test_the_trainer_is_told_which_sides_were_cut(ready: Any) -> None:
    (only,) = await ready.new_run()
    await ready.judged(only, SCORES)
    await cut(ready, "answer 1 to prompt 1 and on", "answer 1 to prompt 2 and on")
    await ready.advance(only)
    made = await plan(ready, only)
    flags = [(pair["chosen_is_cut"], pair["rejected_is_cut"]) for pair in made.task["pairs"]]
    assert flags == [(True, False), (False, True)]


async def test_the_trainer_is_told_which_winners_were_cut(ready: Any) -> None:
    (only,) = await ready.new_run(training={"loss": {"kind": "sft_winners"}})
    await ready.judged(only, SCORES)
    await cut(ready, "answer 1 to prompt 1 and on")
    await ready.advance(only)
    examples = (await plan(ready, only)).task["examples"]
    assert {example["completion"]: example["is_cut"] for example in examples} == {
        "answer 1 to prompt 1 and on": True,
        "answer 0 to prompt 2": False,
    }
    assert {example["kind"] for example in examples} == {"winner"}


async def test_dpo_with_likelihood(ready: Any) -> None:
    loss = {"kind": "dpo_likelihood", "weight": 0.5}
    (only,) = await ready.new_run(training={"loss": loss})
    await ready.judged(only, SCORES)
    await ready.advance(only)
    made = await plan(ready, only)
    assert (made.child, made.task["config"]["loss"]) == (DPO, loss)


async def test_sft_on_the_winners_alone(ready: Any) -> None:
    """A winner of several pairs is one example."""
    (only,) = await ready.new_run(
        training={"loss": {"kind": "sft_winners"}}, pairing={"policy": {"kind": "several"}}
    )
    await ready.judged(only, SCORES)
    await ready.advance(only)
    assert await ready.value("SELECT count(*) FROM preference_pairs") == 4
    made = await plan(ready, only)
    assert (made.child, made.kind, made.task["schedule"]) == (SFT, "sft", "linear")
    # Of prompt 1 response 1 beats 2 and 0, and 2 beats 0.
    assert sorted(example["completion"] for example in made.task["examples"]) == [
        "answer 0 to prompt 2",
        "answer 1 to prompt 1 and on",
        "answer 2 to prompt 1 and on and on",
    ]
    assert made.about["num_examples"] == 3
    assert not {"loss", "beta", "early_stopping"} & set(made.task["config"])


@pytest.mark.parametrize("kind", ["dpo", "sft_winners"])
async def test_early_stopping_gets_its_prompts(ready: Any, kind: str) -> None:
    await ready.add_prompts("v1", "v2", "v3", dataset="validation")
    how = {"every_num_steps": 7, "num_prompts": 2, "max_tokens": 9}
    (only,) = await ready.new_run(training={"early_stopping": how, "loss": {"kind": kind}})
    await ready.judged(only, SCORES)
    await ready.advance(only)
    assert (await plan(ready, only)).task["early_stopping"] == {
        "every_num_steps": 7,
        "max_tokens": 9,
        "prompts": [[{"role": "user", "content": "v1"}], [{"role": "user", "content": "v2"}]],
    }


class ScriptedJudge:
    """In the place of JudgeClient: prefers what the script ranks higher, in either order."""

    merits: ClassVar[dict[str, int]] = {}
    asked: ClassVar[list[tuple[str, str, str]]] = []
    how: ClassVar[dict[str, Any]] = {}

    def __init__(self, url: str, key: str) -> None:
        self.url = url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def compare(
        self, prompt: list[Message], first: str, second: str, **how: Any
    ) -> WrittenComparison:
        self.asked.append((prompt[-1]["content"], first, second))
        self.how.update(how)
        a, b = self.merits[first], self.merits[second]
        if a < 0 or b < 0:
            return WrittenComparison("…", None, UnscoredReason.TRUNCATED, "r", "judge", "7f3a")
        which = Preference.TIE if a == b else Preference.FIRST if a > b else Preference.SECOND
        return WrittenComparison("…", which, None, "r", "judge", "7f3a")


@pytest.fixture
def checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> validation.Validation:
    settings = Settings(
        database_url=SecretStr("…"),
        broker_url=SecretStr("…"),
        api_key=SecretStr("api-key-of-the-tests"),
        admin_key=SecretStr("admin-key-of-the-tests"),
        checkpoint_root=tmp_path,
    )
    monkeypatch.setattr(validation, "JudgeClient", ScriptedJudge)
    monkeypatch.setattr(ScriptedJudge, "asked", [])
    monkeypatch.setattr(ScriptedJudge, "how", {})
    monkeypatch.setattr(
        ScriptedJudge, "merits", {"bad": 0, "fair": 1, "good": 2, "best": 3, "unread": -1}
    )
    asked: list[list[Message]] = [[{"role": "user", "content": text}] for text in ("p", "q")]
    how = EarlyStopping(mode=JudgementMode.CONSTRAINED, judge_max_tokens=48)
    return validation.Validation(settings, asked, how)


async def go_on(checks: validation.Validation, step: int, *answers: str) -> bool:
    return (await checks.answer({"step": step, "answers": list(answers)}))["go_on"]


async def test_the_first_check_has_nothing_to_lose_against(checks: validation.Validation) -> None:
    assert await go_on(checks, 0, "bad", "bad")
    assert ScriptedJudge.asked == []


@pytest.mark.parametrize(
    ("answers", "expected", "win_rate", "loss_rate"),
    [
        (("good", "good"), True, 1.0, 0.0),
        (("good", "fair"), True, 0.5, 0.0),  # one wins, one ties
        (("good", "bad"), False, 0.5, 0.5),  # as many losses as wins
        (("fair", "fair"), False, 0.0, 0.0),
        (("bad", "bad"), False, 0.0, 1.0),
        (("unread", "good"), True, 1.0, 0.0),  # undecided counts for nobody
    ],
)
async def test_training_goes_on_while_newer_answers_win_more_than_they_lose(
    checks: validation.Validation,
    answers: tuple[str, str],
    expected: bool,
    win_rate: float,
    loss_rate: float,
) -> None:
    await go_on(checks, 0, "fair", "fair")
    assert await checks.answer({"step": 200, "answers": list(answers)}) == {
        "go_on": expected,
        "validation_win_rate": win_rate,
        "validation_loss_rate": loss_rate,
    }
    new, old = answers[0], "fair"
    assert [ask for ask in ScriptedJudge.asked if ask[0] == "p"] == [
        ("p", new, old),
        ("p", old, new),
    ]
    assert len(ScriptedJudge.asked) == 4
    assert ScriptedJudge.how == {"mode": "constrained", "max_tokens": 48}


async def test_a_check_that_nobody_could_read_fails_the_training(
    checks: validation.Validation,
) -> None:
    """Not "no win": that would publish the untrained weights as the next version."""
    await go_on(checks, 0, "fair", "fair")
    with pytest.raises(TrainingFailed, match=r"step 200 .* 2 prompts .*\(4 truncated\)"):
        await go_on(checks, 200, "unread", "unread")


async def test_a_check_meets_the_last_one_that_won(checks: validation.Validation) -> None:
    assert await go_on(checks, 0, "fair", "fair")
    assert await go_on(checks, 1, "best", "best")
    assert not await go_on(checks, 2, "bad", "bad")
    assert not await go_on(checks, 3, "good", "good")  # beats the first, and what lost


async def test_a_child_that_goes_on_brings_what_it_kept(checks: validation.Validation) -> None:
    """A new trainer remembers no check; a child that begins anew must not meet an old one."""
    check = {"step": 400, "answers": ["good", "good"]}
    assert not (await checks.answer({**check, "against": ["best", "best"]}))["go_on"]
    assert (await checks.answer({**check, "against": ["bad", "bad"]}))["go_on"]
    assert await go_on(checks, 0, "fair", "fair")
    assert await go_on(checks, 200, "good", "good")
