"""Each format's pure `record`, against hand-written rows."""

import re
from typing import Any

import pytest

from rewardloop.datasets import alpaca, oasst, seed, self_instruct, sharegpt, trl

QUESTION = {"role": "user", "content": "Why is the sky blue?"}
ANSWER = {"role": "assistant", "content": "Rayleigh scattering."}
SYSTEM = {"role": "system", "content": "Be brief."}


def tree(replies: Any = None, **prompt: Any) -> dict[str, Any]:
    root = {"text": "Hi?", "role": "prompter", "lang": "en", "deleted": False, "replies": replies}
    return {"message_tree_id": "t1", "tree_state": "ready_for_export", "prompt": root | prompt}


def reply(text: str, rank: int | None, **more: Any) -> dict[str, Any]:
    return {"text": text, "role": "assistant", "lang": "en", "rank": rank} | more


def test_seed_takes_prompt_response_and_id() -> None:
    raw = {"id": "s1", "category": "writing", "prompt": "Write.", "response": "Done."}
    (found,) = seed.record(raw)
    assert found.messages == ({"role": "user", "content": "Write."},)
    assert found.reference == "Done."
    assert found.source == "seed:s1"


@pytest.mark.parametrize("response", [None, "", "  \n"])
def test_seed_without_an_answer_has_no_reference(response: str | None) -> None:
    (found,) = seed.record({"prompt": "Write.", "response": response})
    assert found.reference is None
    assert found.source == "seed"


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ({"id": "a"}, '"prompt" is missing'),
        ({"prompt": " \n"}, "prompt is empty"),
        ({"prompt": None}, '"prompt" is null, not a text'),
        ({"prompt": True}, '"prompt" is a boolean, not a text'),
        ({"prompt": 1.5}, '"prompt" is a number, not a text'),
        ({"prompt": ["x"]}, '"prompt" is an array, not a text'),
        ({"prompt": {}}, '"prompt" is an object, not a text'),
        ({"prompt": "x", "response": 3}, '"response" is a number, not a text'),
        ({"prompt": "a\0b"}, "a text holds a NUL character, which cannot be stored"),
        ({"prompt": "x", "response": "\ud83d"}, "a text holds half a surrogate pair (\\ud83d)"),
    ],
)
def test_seed_problems(raw: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}$"):
        seed.record(raw)


def test_alpaca_joins_instruction_and_input_by_a_blank_line() -> None:
    (found,) = alpaca.record({"instruction": "Add.", "input": "1 and 2", "output": "3"})
    assert found.messages[0]["content"] == "Add.\n\n1 and 2"
    assert found.reference == "3"


def test_alpaca_without_input_is_the_instruction_alone() -> None:
    (found,) = alpaca.record({"instruction": "Sing.", "input": "", "output": "La.", "id": 7})
    assert found.messages[0]["content"] == "Sing."
    assert found.source == "alpaca:7"


def test_alpaca_with_only_an_input_is_empty() -> None:
    with pytest.raises(ValueError, match=r"^prompt is empty$"):
        alpaca.record({"instruction": " ", "input": "1 and 2", "output": "3"})


def test_self_instruct_takes_the_first_instance() -> None:
    instances = [{"input": "a", "output": "A"}, {"input": "b", "output": "B"}]
    raw = {"id": "seed_task_0", "name": "n", "instruction": "Raise.", "instances": instances}
    (found,) = self_instruct.record(raw)
    assert found.messages == ({"role": "user", "content": "Raise.\n\na"},)
    assert found.reference == "A"
    assert found.source == "self_instruct:seed_task_0"


@pytest.mark.parametrize(
    ("instances", "problem"),
    [
        ([], '"instances" is empty'),
        ("x", '"instances" is a text, not a list'),
        ([{}, 3], '"instances" element 2 is a number, not an object'),
    ],
)
def test_self_instruct_problems(instances: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}$"):
        self_instruct.record({"instruction": "Raise.", "instances": instances})


def test_self_instruct_needs_its_instances() -> None:
    with pytest.raises(ValueError, match=r'^"instances" is missing$'):
        self_instruct.record({"instruction": "Raise."})


def test_oasst_reference_is_the_lowest_rank() -> None:
    (found,) = oasst.record(tree([reply("second", 1), reply("best", 0), reply("unranked", None)]))
    assert found.messages == ({"role": "user", "content": "Hi?"},)
    assert found.reference == "best"
    assert found.source == "oasst:t1"


def test_oasst_passes_over_deleted_empty_and_foreign_replies() -> None:
    replies = [
        reply("gone", 0, deleted=True),
        reply(" ", 1),
        reply("hallo", 2, lang="de"),
        reply("kept", 3),
    ]
    assert oasst.record(tree(replies), "en")[0].reference == "kept"
    assert oasst.record(tree(replies), None)[0].reference == "hallo"


@pytest.mark.parametrize("replies", [None, [], [reply("unranked", None)]])
def test_oasst_without_ranks_has_no_reference(replies: Any) -> None:
    assert oasst.record(tree(replies))[0].reference is None


def test_oasst_of_equal_ranks_the_first_in_the_file_is_the_reference() -> None:
    replies = [reply("worse", 1), reply("zebra", 0), reply("aardvark", 0)]
    assert oasst.record(tree(replies))[0].reference == "zebra"


def test_oasst_passes_over_an_overlong_reply() -> None:
    replies = [reply("x" * 200_000, 0), reply("short", 1)]
    assert oasst.record(tree(replies))[0].reference == "short"


@pytest.mark.parametrize(
    "change",
    [
        {"deleted": True},
        {"deleted": True, "text": None},
        {"text": " "},
        {"lang": "de"},
        {"text": "x" * 200_000},
    ],
)
def test_oasst_filters_unwanted_prompts(change: dict[str, Any]) -> None:
    assert oasst.record(tree(**change), "en") == []


def test_oasst_of_any_language() -> None:
    assert len(oasst.record(tree(lang="de"), None)) == 1


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ({"message_tree_id": "t1"}, '"prompt" is missing'),
        ({"prompt": "Hi?"}, '"prompt" is a text, not an object'),
        (tree(role="assistant"), '"prompt" has the role "assistant", not "prompter"'),
        (tree(lang=None), '"lang" is null, not a text'),
        (tree([{"rank": 0}]), '"text" is missing'),
        (tree({"rank": 0}), '"replies" is an object, not a list'),
        (
            tree([reply("good", 0), reply("bad", True)]),
            'the "rank" of reply 2 is a boolean, not a whole number from 0 to 2147483647',
        ),
    ],
)
def test_oasst_problems(raw: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}$"):
        oasst.record(raw, "en")


def conversations(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"id": "c1", "conversations": [{"from": who, "value": words} for who, words in turns]}


def test_sharegpt_ends_before_the_first_answer() -> None:
    raw = conversations(
        ("system", "Be brief."), ("human", "One?"), ("gpt", "1"), ("human", "Two?"), ("gpt", "2")
    )
    (found,) = sharegpt.record(raw)
    assert found.messages == (SYSTEM, {"role": "user", "content": "One?"})
    assert found.reference == "1"
    assert found.source == "sharegpt:c1"


def test_sharegpt_keeps_an_opening_turn_of_the_assistant() -> None:
    (found,) = sharegpt.record(conversations(("gpt", "Hello!"), ("user", "One?"), ("gpt", "1")))
    assert [m["role"] for m in found.messages] == ["assistant", "user"]
    assert found.reference == "1"


def test_sharegpt_without_answer_has_no_reference() -> None:
    assert sharegpt.record(conversations(("human", "One?")))[0].reference is None


def test_sharegpt_does_not_look_past_the_answer() -> None:
    raw = conversations(("user", "One?"), ("assistant", "1"), ("tool", "?"))
    assert sharegpt.record(raw)[0].reference == "1"


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (conversations(), "there are no messages"),
        (conversations(("human", " "), ("gpt", "1")), "prompt is empty"),
        (
            conversations(("system", "Be brief.")),
            "the prompt ends in the turn of role system, not of the user",
        ),
        (
            conversations(("human", "x"), ("bing", "y")),
            'turn 2: "from" is "bing", not one of human, user, gpt, assistant, system',
        ),
        ({"conversations": [{"from": "human"}]}, 'turn 1: "value" is missing'),
    ],
)
def test_sharegpt_problems(raw: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}$"):
        sharegpt.record(raw)


@pytest.mark.parametrize(
    ("raw", "messages", "reference"),
    [
        ({"prompt": "The sky is"}, [("user", "The sky is")], None),
        ({"prompt": "The sky is", "completion": " blue."}, [("user", "The sky is")], " blue."),
        ({"prompt": "A", "completion": "bad", "label": False}, [("user", "A")], None),
        ({"prompt": "A", "completion": "good", "label": True}, [("user", "A")], "good"),
        ({"prompt": "A", "completion": " "}, [("user", "A")], None),
        ({"prompt": "A", "chosen": "good", "rejected": "bad"}, [("user", "A")], "good"),
        (
            {"prompt": [SYSTEM, QUESTION], "chosen": [ANSWER], "rejected": []},
            [("system", "Be brief."), ("user", "Why is the sky blue?")],
            "Rayleigh scattering.",
        ),
        (
            {"prompt": "Why is the sky blue?", "chosen": [QUESTION, ANSWER], "messages": []},
            [("user", "Why is the sky blue?")],
            "Rayleigh scattering.",
        ),
        (
            {"chosen": [QUESTION, ANSWER], "rejected": [QUESTION, ANSWER]},
            [("user", "Why is the sky blue?")],
            "Rayleigh scattering.",
        ),
        (
            {"messages": [QUESTION, ANSWER, QUESTION]},
            [("user", "Why is the sky blue?")],
            "Rayleigh scattering.",
        ),
    ],
)
def test_trl_types(
    raw: dict[str, Any], messages: list[tuple[str, str]], reference: str | None
) -> None:
    (found,) = trl.record(raw)
    assert [(m["role"], m["content"]) for m in found.messages] == messages
    assert found.reference == reference


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (
            {"chosen": "a", "rejected": "b"},
            'there is neither "prompt" nor "messages" nor a conversation in "chosen"',
        ),
        ({"prompt": "A", "chosen": []}, '"chosen" does not end in a turn of the assistant'),
        ({"chosen": [QUESTION]}, '"chosen" does not end in a turn of the assistant'),
        (
            {"prompt": [QUESTION, ANSWER]},
            "the prompt ends in the turn of role assistant, not of the user",
        ),
        (
            {"prompt": [{"role": "user", "content": [{"type": "image"}]}]},
            'in "prompt", turn 1: "content" is an array, not a text',
        ),
        ({"messages": "A"}, '"messages" is a text, not a list'),
        ({"prompt": "A", "completion": 3}, '"completion" is a number, not a text'),
    ],
)
def test_trl_problems(raw: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}$"):
        trl.record(raw)


def test_trl_source_prefers_the_prompt_id() -> None:
    assert trl.record({"prompt": "A", "prompt_id": "p", "id": "i"})[0].source == "trl:p"
    assert trl.record({"prompt": "A", "prompt_id": " ", "id": 4})[0].source == "trl:4"
