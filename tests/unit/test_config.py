"""The experiment's schema and the environment's."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from rewardloop.config import (
    NEEDS,
    Lora,
    RunConfig,
    Settings,
    load_settings,
    parse_run_config,
    stored_run_config,
)
from rewardloop.errors import InvalidInput
from tests.unit.cases import for_each

GOLDEN = Path(__file__).parent / "golden" / "config_keys.json"

ENVIRONMENT = {
    "REWARDLOOP_DATABASE_URL": "postgresql+psycopg://u:hunter2@h/d",
    "REWARDLOOP_BROKER_URL": "redis://:hunter2@h/0",
    "REWARDLOOP_API_KEY": "a" * 16,
    "REWARDLOOP_ADMIN_KEY": "b" * 16,
    "REWARDLOOP_CHECKPOINT_ROOT": "/checkpoints",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"REWARDLOOP_{name.upper()}", raising=False)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def keys(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Dotted key to default, through nested models, optional ones and unions of them."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        parts = [
            part for part in get_args(field.annotation) or (field.annotation,) if is_model(part)
        ]
        if not isinstance(field.default, BaseModel):
            found[prefix + name] = None if field.is_required() else field.default
        for part in parts:
            kind = part.model_fields.get("kind")
            variant = f"{name}[{kind.default}]" if kind else name
            found |= keys(part, f"{prefix}{variant}.")
    return found


def is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def test_the_keys_and_defaults_are_frozen() -> None:
    """A changed key or default breaks stored runs and files: change the golden file on purpose."""
    assert json.loads(json.dumps(keys(RunConfig))) == json.loads(GOLDEN.read_text())


def test_the_defaults_are_the_papers() -> None:
    config = parse_run_config({})
    sampling, judging, training = config.sampling, config.judging, config.training
    assert (sampling.num_samples, sampling.temperature, sampling.top_p) == (4, 0.7, 0.9)
    assert judging.num_judgements == 3
    assert judging.mode == "free"
    assert (training.learning_rate, training.learning_rate_floor) == (1e-6, 1e-7)
    assert (training.batch_size, training.dropout, training.beta) == (16, 0.1, 0.1)
    assert training.weights.kind == "full"
    assert config.pairing.min_margin == 0


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"samplng": {}}, "samplng"),
        ({"sampling": {"temprature": 1}}, "sampling.temprature"),
        ({"training": {"weights": {"kind": "lora", "ranks": 4}}}, "ranks"),
        ({"training": {"weights": {"kind": "full", "rank": 4}}}, "rank"),
    ],
)
def test_an_unknown_key_is_named(data: dict[str, Any], key: str) -> None:
    with pytest.raises(InvalidInput, match="there is no such key") as caught:
        parse_run_config(data)
    assert key in caught.value.message


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"training": {"weights": {"kind": "full", "rank": 4}}}, "training.weights.rank"),
        ({"training": {"loss": {"kind": "dpo", "weight": 1}}}, "training.loss.weight"),
        ({"pairing": {"policy": {"kind": "several", "rho": 1}}}, "pairing.policy.rho"),
        (
            {"bootstrap": {"ift": {"weights": {"kind": "lora", "rank": 0}}}},
            "bootstrap.ift.weights.rank",
        ),
        ({"training": {"weights": {"kind": "qlora"}}}, "training.weights.kind"),
        ({"training": {"weights": {"rank": 4}}}, "training.weights.kind"),
        ({"health": {"also_assess": ["fre"]}}, "health.also_assess.0"),
    ],
)
def test_a_key_is_named_as_a_file_spells_it(data: dict[str, Any], key: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_run_config(data)
    assert caught.value.message.startswith(f"{key}: ")


def test_every_wrong_key_is_named() -> None:
    data = {"sampling": {"top_p": 0, "n": 4}, "training": {"beta": "x"}}
    with pytest.raises(InvalidInput) as caught:
        parse_run_config(data)
    for key in ("sampling.top_p", "sampling.n", "training.beta"):
        assert key in caught.value.message


@pytest.mark.parametrize(
    "data",
    [
        {"sampling": {"num_samples": 1}},
        {"sampling": {"temperature": -0.1}},
        {"sampling": {"top_p": 1.1}},
        {"judging": {"num_judgements": 0}},
        {"judging": {"mode": "strict"}},
        {"pairing": {"min_margin": -1}},
        {"training": {"learning_rate": 0}},
        {"training": {"learning_rate": float("nan")}},
        {"training": {"learning_rate": float("inf")}},
        {"training": {"dropout": 1}},
        {"training": {"weights": {"kind": "qlora"}}},
        {"rollout": {"num_tasks": 0}},
        {"seed": -1},
        {"name": ""},
    ],
    ids=lambda data: json.dumps(data),
)
def test_a_wrong_value_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        parse_run_config(data)


def test_the_micro_batch_must_divide_the_batch() -> None:
    with pytest.raises(InvalidInput, match=r"batch_size 10 .*micro_batch_size 4"):
        parse_run_config({"training": {"batch_size": 10, "micro_batch_size": 4}})
    config = parse_run_config({"training": {"batch_size": 12, "micro_batch_size": 4}})
    assert config.training.batch_size == 12


@for_each(
    "data, told",
    [
        ({"sampling": {"temprature": 1}}, "there is no such key; did you mean 'temperature'?"),
        ({"trainning": {}}, "there is no such key; did you mean 'training'?"),
        ({"training": {"weights": {"kind": "lora", "ranks": 1}}}, "did you mean 'rank'?"),
        ({"beta": 0.1}, "there is no such key; did you mean training.beta?"),
        ({"zzz": 1}, "there is no such key; remove it or correct its spelling."),
        (
            {"pairing": {"policy": {"kind": "lengthcontrol"}}},
            "pairing.policy.kind: unknown 'lengthcontrol'; use one of best_worst, length_control, "
            "several, consistency, anchored.",
        ),
        (
            {"training": {"weights": {"rank": 4}}},
            "training.weights.kind: is missing; use one of full, lora.",
        ),
        (
            {"judging": {"mode": "strict"}},
            "unknown 'strict'; use one of free, constrained, expected.",
        ),
        ({"judging": None}, "judging: null is no value of this key"),
        ({"bootstrap": {"eft": [1]}}, "bootstrap.eft: must be a mapping of keys; got [1]."),
        ({"sampling": {"num_samples": 1}}, "sampling.num_samples: must be at least 2; got 1."),
        ({"name": "x" * 5000}, "name: must have at most 200 characters; got 'xxx"),
    ],
)
def test_what_is_wrong_is_told_with_what_mends_it(data: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_run_config(data)
    assert told in caught.value.message
    assert len(caught.value.message) < 300


@for_each(
    "key, value",
    [
        *(("training.beta", word) for word in ("yes", "1e-1", "0.1", "", True, False, [0.1])),
        *(("judging.num_judgements", word) for word in ("3", True, 3.0, 3e0)),
        *(("seed", word) for word in ("010", "17:04", 1.0, False)),
        *(("health.max_tie_rate", word) for word in ("~", "0.5", True)),
        *(("prompts.self_instruct.min_words", word) for word in ("3", True)),
        *(("name", word) for word in (3, True, 1.5)),
    ],
)
def test_a_word_is_no_number_and_a_number_no_word(key: str, value: Any) -> None:
    """However the config is made: from a file, over REST or in code."""
    data: Any = value
    for part in reversed(key.split(".")):
        data = {part: data}
    with pytest.raises(InvalidInput, match=rf"^{key}: must be a "):
        parse_run_config(data)
    with pytest.raises(ValidationError):
        RunConfig.model_validate_json(json.dumps(data))


def test_a_whole_number_is_a_number() -> None:
    assert parse_run_config({"sampling": {"temperature": 1}}).sampling.temperature == 1.0


def test_lora_is_chosen_by_its_kind() -> None:
    weights = parse_run_config({"training": {"weights": {"kind": "lora", "rank": 8}}})
    assert weights.training.weights == Lora(rank=8, alpha=32)


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        RunConfig().sampling.top_p = 1.0


def test_the_digest_is_stable_and_changes_with_the_config() -> None:
    spelled_out = parse_run_config({"sampling": {"num_samples": 4}, "seed": 0})
    assert spelled_out.digest() == RunConfig().digest()
    assert len(RunConfig().digest()) == 64
    others: list[dict[str, Any]] = [
        {"seed": 1},
        {"sampling": {"top_p": 0.8}},
        {"training": {"weights": {"kind": "lora"}}},
    ]
    digests = {parse_run_config(data).digest() for data in others}
    assert len(digests | {RunConfig().digest()}) == 4


def test_a_stored_config_reads_back_as_itself() -> None:
    config = parse_run_config({"training": {"weights": {"kind": "lora"}}, "base_version": "m1"})
    assert parse_run_config(json.loads(json.dumps(config.model_dump(mode="json")))) == config


def test_settings_come_from_the_environment(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("REWARDLOOP_GENERATOR_URLS", '["http://a", "http://b"]')
    settings = load_settings()
    assert settings.generator_urls == ["http://a", "http://b"]
    assert settings.checkpoint_root == Path("/checkpoints")
    assert settings.database_url.get_secret_value() == ENVIRONMENT["REWARDLOOP_DATABASE_URL"]
    assert "hunter2" not in repr(settings)


def test_missing_variables_are_all_named(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("REWARDLOOP_DATABASE_URL")
    environment.delenv("REWARDLOOP_ADMIN_KEY")
    with pytest.raises(InvalidInput) as caught:
        load_settings()
    message = caught.value.message
    assert "REWARDLOOP_DATABASE_URL: " in message
    assert "REWARDLOOP_ADMIN_KEY: " in message
    assert "REWARDLOOP_API_KEY" not in message


@pytest.mark.parametrize("service", NEEDS)
def test_what_a_service_needs_is_named_and_the_rest_is_not_read(
    environment: pytest.MonkeyPatch, service: str
) -> None:
    for variable in ENVIRONMENT:
        name = variable.removeprefix("REWARDLOOP_").lower()
        environment.setenv(variable, "" if name in NEEDS[service] else "short")
    with pytest.raises(InvalidInput) as caught:
        load_settings(service)
    named = {name for name in Settings.model_fields if f"_{name.upper()}:" in caught.value.message}
    assert named == NEEDS[service] - {"judge_upstream_key", "prompt_upstream_key"}


def test_a_secret_that_a_service_was_not_given_cannot_be_used(
    environment: pytest.MonkeyPatch,
) -> None:
    settings = load_settings("judge")
    assert settings.api_key.get_secret_value() == ENVIRONMENT["REWARDLOOP_API_KEY"]
    with pytest.raises(LookupError, match="admin_key is not given to this service"):
        settings.admin_key.get_secret_value()
    assert not settings.checkpoint_root.is_dir()


def test_secrets_that_were_read_stand_in_no_message(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("REWARDLOOP_JUDGE_UPSTREAM_KEY", "sk-of-somebody-else")
    load_settings()
    assert InvalidInput("sk-of-somebody-else was refused").message == "*** was refused"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REWARDLOOP_API_KEY", "hunter2"),
        ("REWARDLOOP_METRICS_PORT", "hunter2"),
        ("REWARDLOOP_GENERATOR_URLS", "http://:hunter2@host"),
    ],
)
def test_a_wrong_variable_is_named_and_its_value_is_not(
    environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    environment.setenv(name, value)
    with pytest.raises(InvalidInput, match=name) as caught:
        load_settings()
    assert "hunter2" not in caught.value.message


def test_anchored_pairs_need_the_same_prompts_in_each_iteration() -> None:
    anchored = {"pairing": {"policy": {"kind": "anchored"}}}
    parse_run_config(anchored)
    with pytest.raises(InvalidInput, match=r"remove prompts\.self_instruct"):
        parse_run_config({**anchored, "prompts": {"self_instruct": {}}})


def test_a_lag_and_early_stopping_exclude_each_other() -> None:
    """Early stopping asks the engines, which others use while a model trains with a lag."""
    early = {"training": {"early_stopping": {}}}
    assert parse_run_config({"lag": 1}).lag == 1
    parse_run_config({**early, "lag": 0})
    with pytest.raises(InvalidInput, match="set lag to 0 or early_stopping to null"):
        parse_run_config({**early, "lag": 1})
    with pytest.raises(InvalidInput, match="lag: must be at most 1"):
        parse_run_config({"lag": 2})


def test_the_learning_rates_of_every_stage_are_checked() -> None:
    with pytest.raises(InvalidInput, match=r"bootstrap\.ift_and_eft: learning_rate_floor"):
        parse_run_config({"bootstrap": {"ift_and_eft": {"learning_rate": 1e-7}}})


@pytest.mark.parametrize(
    "data",
    [
        {"training": {"batch_size": 5, "micro_batch_size": 4}},
        {"training": {"learning_rate": 1e-7}},
        {"pairing": {"policy": {"kind": "anchored"}}, "prompts": {"self_instruct": {}}},
    ],
)
def test_keys_that_do_not_fit_together_are_no_config_however_it_is_made(
    data: dict[str, Any],
) -> None:
    with pytest.raises(ValidationError):
        RunConfig.model_validate(data)


def test_a_language_that_cannot_be_told_is_refused_before_the_run_begins() -> None:
    with pytest.raises(InvalidInput, match=r"self_instruct\.language: .*'english'.* en, "):
        parse_run_config({"prompts": {"self_instruct": {"language": "english"}}})


def test_a_stored_config_that_is_older_than_a_key_means_what_was_done_then() -> None:
    stored = RunConfig.model_validate({"bootstrap": {}}).model_dump(mode="json")
    assert stored_run_config(stored).model_dump(mode="json") == stored
    del stored["bootstrap"]["share_rankings"], stored["prompts"]["allow_evaluation_prompts"]
    del stored["training"]["max_gradient_norm"], stored["pairing"]["cut_answers"]
    older = stored_run_config(stored)
    assert older.bootstrap is not None
    assert older.bootstrap.share_rankings
    assert older.prompts.allow_evaluation_prompts
    assert (older.training.max_gradient_norm, older.pairing.cut_answers) == (1.0, "keep")
    assert stored_run_config({**stored, "bootstrap": None}).bootstrap is None


def test_a_stored_config_that_would_be_refused_today_can_be_read() -> None:
    """Its run may have ended long ago, and its report is still asked for."""
    stored = RunConfig().model_dump(mode="json")
    stored["pairing"]["policy"] = {"kind": "consistency"}
    stored["judging"]["num_judgements"] = 1
    assert stored_run_config(stored).judging.num_judgements == 1
    with pytest.raises(InvalidInput, match="num_judgements is 1"):
        parse_run_config(stored)


def test_adapters_that_go_on_from_each_other_have_one_size() -> None:
    def sized(rank: int, **changes: Any) -> dict[str, Any]:
        return {"weights": {"kind": "lora", "rank": rank, **changes}}

    both = {"bootstrap": {"ift_and_eft": sized(8)}, "training": sized(8)}
    parse_run_config(both)
    parse_run_config({**both, "training": {}})
    parse_run_config({"bootstrap": {"ift": sized(4)}, "training": sized(8)})
    for other in (sized(16), sized(8, alpha=64)):
        with pytest.raises(InvalidInput, match="adapters of another rank or alpha"):
            parse_run_config({**both, "training": other})
