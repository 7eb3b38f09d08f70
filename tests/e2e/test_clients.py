"""The official openai client against the real generator and the real judge."""

import httpx
import openai
import pytest

from tests.e2e.real_demo import Demo

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1000)]
CONVERSATION = [
    {"role": "user", "content": "What is 2 + 2?"},
    {"role": "assistant", "content": "2 + 2 is 4."},
]


def client(demo: Demo, service: str, key: str | None = None) -> openai.OpenAI:
    url = f"{demo.addresses[service]}/v1"
    return openai.OpenAI(base_url=url, api_key=key or demo.keys["api_key"], max_retries=0)


def test_generator_answers(demo: Demo) -> None:
    with client(demo, "generator") as generator:
        assert [m.id for m in generator.models.list()] == ["policy"]
        answer = generator.chat.completions.create(
            model="policy", messages=CONVERSATION[:1], n=2, max_tokens=16
        )
        completion = generator.completions.create(
            model="policy", prompt="The sea", n=4, max_tokens=4
        )
    new = demo.summary["iterations"][-1]["new_version"]
    assert len(answer.choices) == 2
    assert answer.model_extra is not None
    assert answer.model_extra["weight_version"] == new
    assert any(choice.text for choice in completion.choices)  # one may end at once
    assert completion.model_extra == completion.model_extra | {"weight_version": new}


def test_a_template_of_ones_own_is_a_bad_request(demo: Demo) -> None:
    with (
        client(demo, "generator") as generator,
        pytest.raises(openai.BadRequestError, match="chat_template is not served here"),
    ):
        generator.chat.completions.create(
            model="policy",
            messages=CONVERSATION[:1],
            extra_body={"chat_template": "{{ messages[0].content }}"},
        )


def test_generator_streams(demo: Demo) -> None:
    asked = [{"role": "user", "content": "Tell me a long story about the sea."}]
    with client(demo, "generator") as generator:
        chunks = list(
            generator.chat.completions.create(
                model="policy", messages=asked, max_tokens=16, stream=True
            )
        )
    new = demo.summary["iterations"][-1]["new_version"]
    assert len(chunks) > 3
    assert {(chunk.model_extra or {})["weight_version"] for chunk in chunks} == {new}


@pytest.mark.parametrize("mode", ["free", "constrained"])
def test_judge_answers(demo: Demo, mode: str) -> None:
    with client(demo, "judge") as judge:
        answer = judge.chat.completions.create(
            model="judge",
            messages=CONVERSATION,
            n=3,
            max_tokens=64,
            extra_body={"judgement_mode": mode},
        )
    judgements = [(choice.model_extra or {})["judgement"] for choice in answer.choices]
    assert len(judgements) == 3
    for judgement in judgements:
        assert (judgement["score"] is None) == (judgement["status"] == "unscored")
        assert judgement["judge_version"] == demo.summary["iterations"][-1]["new_version"]
        if mode == "constrained":
            assert 0 <= judgement["score"] <= 5


def test_judge_streams(demo: Demo) -> None:
    with client(demo, "judge") as judge:
        chunks = list(
            judge.chat.completions.create(
                model="judge",
                messages=CONVERSATION,
                n=2,
                max_tokens=64,
                stream=True,
                extra_body={"judgement_mode": "constrained"},
            )
        )
    extras = [c.model_extra or {} for chunk in chunks for c in chunk.choices]
    judgements = [extra["judgement"] for extra in extras if "judgement" in extra]
    assert len(judgements) == 2
    assert all(judgement["status"] == "scored" for judgement in judgements)


@pytest.mark.parametrize("service", ["generator", "judge"])
def test_a_wrong_key_opens_nothing(demo: Demo, service: str) -> None:
    with (
        client(demo, service, key="wrong") as wrong,
        pytest.raises(openai.AuthenticationError, match="key"),
    ):
        wrong.chat.completions.create(model="policy", messages=CONVERSATION, max_tokens=8)


def test_the_api_key_opens_no_admin_route(demo: Demo) -> None:
    headers = {"authorization": f"Bearer {demo.keys['api_key']}"}
    url = f"{demo.addresses['generator']}/admin/weights"
    assert httpx.get(url, headers=headers).status_code == 401


def test_vllms_other_routes_are_shut(demo: Demo) -> None:
    headers = {"authorization": f"Bearer {demo.keys['api_key']}"}
    for path in ("/collective_rpc", "/v1/embeddings", "/tokenize", "/pause", "/reset_prefix_cache"):
        answer = httpx.post(demo.addresses["generator"] + path, headers=headers, json={})
        assert answer.status_code == 404, path


def test_a_prompt_over_the_context_is_refused_with_its_length(demo: Demo) -> None:
    long = [{"role": "user", "content": "word " * 4000}]
    with client(demo, "generator") as generator, pytest.raises(openai.BadRequestError) as refused:
        generator.chat.completions.create(model="policy", messages=long, max_tokens=8)
    assert "context length" in str(refused.value)


def test_many_seeded_sequences_leave_the_engine_alive(demo: Demo) -> None:
    """vLLM's CPU engine can die of a seed, so the gate drops it and says so."""
    headers = {"authorization": f"Bearer {demo.keys['api_key']}"}
    answer = httpx.post(
        f"{demo.addresses['generator']}/v1/completions",
        json={"model": "policy", "prompt": "The", "n": 64, "seed": 7, "max_tokens": 4},
        headers=headers,
        timeout=240,
    )
    assert answer.status_code == 200
    assert len(answer.json()["choices"]) == 64
    assert answer.headers["x-rewardloop-dropped"] == "seed"


def test_the_engine_keeps_its_own_metrics_behind_the_key(demo: Demo) -> None:
    url = f"{demo.addresses['generator']}/metrics"
    assert httpx.get(url).status_code == 401
    shown = httpx.get(url, headers={"authorization": f"Bearer {demo.keys['api_key']}"}).text
    assert "vllm:num_requests_running" in shown
    assert "rewardloop_samples_total" in shown
