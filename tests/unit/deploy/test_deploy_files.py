"""The deployment's files agree with each other and with the code.

Nothing is started here. Names and ports are held against `Settings`, `services/`
and `telemetry`, so a renamed setting, module or metric breaks a test, not a box.
"""

import copy
import json
import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from rewardloop import telemetry
from rewardloop.config import NEEDS, Settings, load_settings
from rewardloop.config import SECRETS as SECRETS_OF_SETTINGS
from tests.unit.cases import for_each

ROOT = Path(__file__).parents[3]
COMPOSE_FILES = ("docker-compose.yml", "deploy/docker-compose.gpu.yml")
DOCKERFILES = ("Dockerfile.light", "Dockerfile.engine", "Dockerfile.trainer")
NAMED_OTHERWISE = {"base": "import_base"}
"""Compose's name of a service, and its name in `NEEDS`."""
ONE_SHOT = {"migrate", "base"}
OURS = ("migrate", "base", "generator", "judge", "controller", "worker", "trainer", "api")
SECRETS = {
    "POSTGRES_PASSWORD",
    "REDIS_PASSWORD",
    "REWARDLOOP_API_KEY",
    "REWARDLOOP_ADMIN_KEY",
    "GRAFANA_ADMIN_PASSWORD",
}
READERS = {
    "JUDGE_UPSTREAM_KEY": {"judge"},
    "EVALUATION_JUDGE_URL": {"controller", "trainer"},
    "PROMPT_UPSTREAM_URL": {"controller", "worker"},
    "PROMPT_UPSTREAM_MODEL": {"worker"},
    "PROMPT_UPSTREAM_KEY": {"worker"},
}
"""Settings of foreign engines, and the services whose code reads them."""
VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::([-?])((?:[^{}])*))?\}")
"""Compose's `${NAME}`, `${NAME:-default}` and `${NAME:?message}`."""


def _yaml(path: str) -> Any:
    return copy.deepcopy(_parsed(path))


@cache
def _parsed(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def _services() -> dict[str, Any]:
    services: dict[str, Any] = _yaml("docker-compose.yml")["services"]
    return services


def _interpolated(text: str) -> str:
    """`text` as compose reads it where every secret is 32 letters long and nothing else is set."""
    return VARIABLE.sub(lambda found: found[3] if found[2] == "-" else "s" * 32, text)


def _modules() -> Iterator[tuple[str, list[str]]]:
    """(service, the arguments from the module on) of every `python -m` command."""
    for name, service in _services().items():
        command = service.get("command", [])
        if command[:2] == ["python", "-m"]:
            yield name, command[2:]


# ---- compose ----


@pytest.mark.parametrize("path", COMPOSE_FILES)
def test_compose_files_follow_the_specification(path: str) -> None:
    package = find_spec("check_jsonschema")
    if package is None or package.origin is None:
        pytest.skip("the compose schema comes with the PyPI package check-jsonschema")
    jsonschema = pytest.importorskip("jsonschema")
    vendored = Path(package.origin).parent / "builtin_schemas/vendor/compose-spec.json"
    schema = json.loads(vendored.read_text(encoding="utf-8"))

    jsonschema.validate(_yaml(path), schema)


def test_all_services_are_there() -> None:
    assert set(_services()) == {*OURS, "postgres", "redis", "prometheus", "grafana"}


def test_every_service_is_pinned_restarts_and_reports_its_health() -> None:
    for name, service in _services().items():
        assert re.search(r":[^:]*\d|:\$\{IMAGE_TAG:-", service["image"]), name
        one_shot = name in ONE_SHOT
        assert service["restart"] == ("no" if one_shot else "unless-stopped"), name
        assert ("healthcheck" in service) is not one_shot, name


def test_dependencies_exist_and_can_reach_their_condition() -> None:
    services = _services()
    for name, service in services.items():
        for other, wanted in service.get("depends_on", {}).items():
            assert other in services, f"{name} waits for {other}, which there is not"
            if wanted["condition"] == "service_healthy":
                assert "healthcheck" in services[other], f"{name} waits for the health of {other}"


def test_volumes_configs_and_secrets_are_declared_and_used() -> None:
    compose = _yaml("docker-compose.yml")
    mounts = [mount for one in _services().values() for mount in one.get("volumes", [])]
    sources = {mount.split(":")[0] for mount in mounts}

    assert {source for source in sources if not source.startswith(".")} == set(compose["volumes"])
    assert all((ROOT / source).is_dir() for source in sources if source.startswith("."))
    for kind in ("configs", "secrets"):
        used = [item for one in _services().values() for item in one.get(kind, [])]
        names = {item if isinstance(item, str) else item["source"] for item in used}
        assert names == set(compose[kind])


def test_ports_are_published_on_loopback_alone() -> None:
    ports = [port for one in _services().values() for port in one.get("ports", [])]

    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_environment_names_are_settings() -> None:
    known = {f"REWARDLOOP_{field.upper()}" for field in Settings.model_fields}
    for name, service in _services().items():
        ours = {key for key in service.get("environment", {}) if key.startswith("REWARDLOOP_")}
        assert ours <= known, name
        assert bool(ours) == (name in OURS), name


@pytest.mark.parametrize("name", OURS)
def test_settings_load_from_a_services_environment(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in _services()[name]["environment"].items():
        monkeypatch.setenv(key, _interpolated(value))

    settings = load_settings(NAMED_OTHERWISE.get(name, name))

    generator = "127.0.0.1" if name == "migrate" else "generator"
    assert settings.generator_urls == [f"http://{generator}:8001"]
    assert settings.metrics_port == (9100 if name in {"controller", "worker", "trainer"} else 0)
    foreign = settings.model_dump(include={setting.lower() for setting in READERS})
    assert set(foreign.values()) == {None, "policy"}, "empty is not unset"


@for_each("name", OURS)
def test_a_service_gets_the_secrets_that_it_needs_and_no_others(name: str) -> None:
    given = {key.removeprefix("REWARDLOOP_").lower() for key in _services()[name]["environment"]}

    assert given & SECRETS_OF_SETTINGS == NEEDS[NAMED_OTHERWISE.get(name, name)] - {
        "checkpoint_root"
    }


@pytest.mark.parametrize("setting", READERS)
def test_settings_of_foreign_engines_reach_who_reads_them_and_nobody_else(setting: str) -> None:
    variable = f"REWARDLOOP_{setting}"
    given = {
        name: service["environment"][variable]
        for name, service in _services().items()
        if variable in service.get("environment", {})
    }

    assert given.keys() == READERS[setting]
    assert all(value.startswith(f"${{{variable}:-") for value in given.values())


def test_secrets_are_required_and_have_an_empty_place_in_the_example() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    used = list(VARIABLE.finditer(text))
    example = (ROOT / "deploy/env.example").read_text(encoding="utf-8")
    empty = set(re.findall(r"^([A-Z_]+)=$", example, re.M))
    optional = set(re.findall(r"^#([A-Z_]+)=", example, re.M))

    assert text.count("${") == len(used)
    assert {found[1] for found in used if found[2] == "?"} == SECRETS == empty
    assert {found[1] for found in used if found[2] != "?"} == optional
    assert {found[2] for found in used} == {"?", "-"}


def test_commands_name_modules_of_services() -> None:
    modules = dict(_modules())

    assert set(modules) == set(OURS) - {"migrate"}
    for name, (module, *_) in modules.items():
        package, room, *_ = module.split(".")
        assert package == "services", name
        assert (ROOT / "services" / room / "__init__.py").is_file(), name


def test_health_is_asked_where_the_command_listens() -> None:
    for name, (_, *arguments) in _modules():
        if name in ONE_SHOT:
            continue
        port = arguments[arguments.index("--port") + 1] if "--port" in arguments else "9100"
        path = "health" if "--port" in arguments else "metrics"
        assert f"http://127.0.0.1:{port}/{path}'" in _services()[name]["healthcheck"]["test"][3]


def test_redis_keeps_messages() -> None:
    content = _yaml("docker-compose.yml")["configs"]["redis"]["content"]

    assert "maxmemory-policy noeviction" in content
    assert "appendonly yes" in content
    assert "requirepass ${REDIS_PASSWORD:?" in content


def test_gpu_override_only_changes_services_that_exist() -> None:
    override = _yaml("deploy/docker-compose.gpu.yml")["services"]

    assert set(override) == {"generator", "trainer"}
    for name, service in override.items():
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]
        assert service["image"] == _services()[name]["image"] + "-gpu"


# ---- images ----


def test_builds_name_dockerfiles_that_exist() -> None:
    built = {one["build"]["dockerfile"] for one in _services().values() if "build" in one}

    assert built == {f"deploy/{name}" for name in DOCKERFILES}


@pytest.mark.parametrize("name", DOCKERFILES)
def test_dockerfile_is_pinned_multi_stage_and_not_root(name: str) -> None:
    lines = (ROOT / "deploy" / name).read_text(encoding="utf-8").splitlines()
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]

    assert len(bases) == 2
    assert all(re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base) for base in bases)
    assert [line for line in lines if line.startswith("USER ")] == ["USER 10001:10001"]


def test_light_image_is_built_from_the_light_lock() -> None:
    dockerfile = (ROOT / "deploy/Dockerfile.light").read_text(encoding="utf-8")

    assert re.findall(r"locks/\S+", dockerfile) == ["locks/light.txt"]


def test_light_lock_holds_no_torch() -> None:
    lock = ROOT / "locks/light.txt"
    if not lock.exists():
        pytest.skip("locks/light.txt is not there yet")
    pinned = re.findall(r"^([A-Za-z0-9._-]+)", lock.read_text(encoding="utf-8"), re.M)

    heavy = [name for name in pinned if re.match(r"(torch|vllm|triton|trl|nvidia)", name, re.I)]
    assert pinned
    assert not heavy


# ---- metrics ----


def _exported_names() -> set[str]:
    """Every series name that our processes can serve."""
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"], "gauge": [""]}
    names = set(telemetry.STORED_NAMES.values())
    for metric in vars(telemetry).values():
        if isinstance(metric, MetricWrapperBase):
            for family in metric.describe():
                names |= {family.name + suffix for suffix in suffixes[family.type]}
    return names


def _names_in(expression: str) -> set[str]:
    """The series that a PromQL expression reads."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]', " ", expression.replace("\\", ""))
    bare = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)|\b\d+[smhd]\b", " ", bare)
    words = set(re.findall(r"(?<![\w:])[A-Za-z_:][\w:]*\b(?!\s*\()", bare))
    return words - {"and", "or", "unless", "offset", "bool"}


def _alert_expressions() -> list[str]:
    groups = _yaml("deploy/prometheus/alerts.yml")["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def _dashboard_expressions() -> list[str]:
    path = ROOT / "deploy/grafana/dashboards/rewardloop.json"
    panels = json.loads(path.read_text(encoding="utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def test_names_are_read_out_of_promql() -> None:
    expression = 'sum by (job) (rate(a_total{x="y"}[5m])) / (b:c offset 15m > 0) or vector(0)'

    assert _names_in(expression) == {"a_total", "b:c"}


def test_alerts_and_dashboard_read_metrics_that_exist() -> None:
    known = _exported_names() | {"up"}
    expressions = _alert_expressions() + _dashboard_expressions()
    read = set().union(*map(_names_in, expressions))

    assert "rewardloop_samples_total" in read
    assert {name for name in read if not name.startswith("vllm:")} <= known


def test_what_two_services_count_is_read_from_one() -> None:
    """A worker and the model service that answered it both count a sample, say."""
    twice = re.compile(r"rewardloop_(?:samples|judgements|tokens)_total(.{0,14})")
    expressions = _alert_expressions() + _dashboard_expressions()
    selectors = [found for text in expressions for found in twice.findall(text)]

    assert selectors
    assert all(selector.startswith('{job="worker"') for selector in selectors)


def test_dashboard_shows_every_metric_of_ours() -> None:
    shown = set().union(*map(_names_in, _dashboard_expressions()))

    for name in _exported_names():
        family = re.sub(r"_(bucket|count|sum)$", "", name)
        assert any(one.startswith(family) for one in shown), name


def test_prometheus_asks_services_where_they_listen() -> None:
    config = _yaml("deploy/prometheus/prometheus.yml")
    ports = {"api": 8000, "generator": 8001, "judge": 8002}
    ports |= dict.fromkeys(("controller", "worker", "trainer"), 9100)
    asked = {job["job_name"]: job for job in config["scrape_configs"]}

    assert asked.keys() == ports.keys()
    for name, job in asked.items():
        (found,) = job["dns_sd_configs"]
        assert (found["names"], found["port"]) == ([name], ports[name])
        assert ("authorization" in job) == (ports[name] != 9100), "9100 asks for no key"


def test_prometheus_reads_the_key_where_compose_mounts_it() -> None:
    (secret,) = _services()["prometheus"]["secrets"]
    jobs = _yaml("deploy/prometheus/prometheus.yml")["scrape_configs"]
    files = {job["authorization"]["credentials_file"] for job in jobs if "authorization" in job}

    assert files == {f"/run/secrets/{secret}"}


def test_dashboard_uses_the_provisioned_data_source() -> None:
    (source,) = _yaml("deploy/grafana/provisioning/datasources/prometheus.yml")["datasources"]
    dashboard = (ROOT / "deploy/grafana/dashboards/rewardloop.json").read_text(encoding="utf-8")
    panels = [panel for panel in json.loads(dashboard)["panels"] if panel["type"] != "row"]

    assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}
