"""The home folder: private, held by one stack, never half-written."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from rewardloop.config import NEEDS, SECRETS
from rewardloop.embedded import stack
from rewardloop.embedded.home import Addresses, Home, write_private
from rewardloop.errors import Conflict, InvalidInput, NotFound

ADDRESSES = Addresses("http://a:1", "http://g:2", "http://j:3", "postgresql://u:p@h/d", "redis://b")


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.create()
    return home


def test_secrets_and_folders_are_the_owners(home: Home) -> None:
    home.remember(ADDRESSES)
    assert {mode(p) for p in (home.folder, home.checkpoints, home.logs)} == {0o700}
    assert mode(home.folder / "credentials.json") == 0o600
    assert mode(home.folder / "stack.json") == 0o600


def test_secrets_are_long_all_different_and_made_once(home: Home, tmp_path: Path) -> None:
    made = home.credentials()
    assert len(set(vars(made).values())) == 4
    assert min(map(len, vars(made).values())) >= 43
    home.create()
    assert home.credentials() == made
    other = Home(tmp_path / "other")
    other.create()
    assert other.credentials().api_key != made.api_key


def test_addresses_are_remembered(home: Home) -> None:
    home.remember(ADDRESSES)
    assert Home(home.folder).addresses() == ADDRESSES


def test_a_home_without_a_stack_says_how_to_start_one(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for read in (home.addresses, home.credentials):
        with pytest.raises(NotFound, match=f"rewardloop up --home {tmp_path}"):
            read()


def test_the_users_folder_is_written_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Home(Path("~/x")).folder == tmp_path / "x"
    monkeypatch.chdir(tmp_path)
    assert Home(Path("y")).folder == tmp_path / "y"


def test_one_stack_at_a_time(home: Home) -> None:
    with home.locked():
        with pytest.raises(Conflict, match=r"runs in .*home already"), Home(home.folder).locked():
            pass
        with pytest.raises(Conflict), home.locked():
            pass
    with home.locked():
        pass


@pytest.mark.parametrize("below", ["", "below"])
def test_a_home_that_is_a_file_is_refused(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.touch()
    home = Home(file / below)
    with pytest.raises(InvalidInput, match=r"file.* cannot be made .*give another --home"):
        home.create()
    for read in (home.addresses, home.credentials):
        with pytest.raises(InvalidInput, match=r"json cannot be read .*--home"):
            read()


def test_a_folder_where_the_lock_would_lie_is_refused(home: Home) -> None:
    (home.folder / "lock").mkdir()
    with pytest.raises(InvalidInput, match="lock cannot be written"), home.locked():
        pass


@pytest.mark.parametrize(
    "content", ['{"api": "http://a:1"}', '{"api": "http', "", "[]", "null", '{"more": 1}']
)
def test_a_file_that_is_cut_or_lacks_a_key_is_named_with_its_keys(home: Home, content: str) -> None:
    (home.folder / "stack.json").write_text(content)
    told = r"stack\.json is no JSON object with exactly the keys api, generator, judge, database"
    with pytest.raises(InvalidInput, match=told):
        home.addresses()
    (home.folder / "credentials.json").write_text(content)
    with pytest.raises(InvalidInput, match=r"credentials\.json .* keys api_key, admin_key"):
        home.credentials()


def test_a_lock_is_given_back_after_an_error(home: Home) -> None:
    with pytest.raises(ZeroDivisionError), home.locked():
        raise ZeroDivisionError
    with home.locked():
        pass


def test_locking_makes_the_home(tmp_path: Path) -> None:
    home = Home(tmp_path / "a" / "b")
    with home.locked():
        assert home.credentials().api_key


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    write_private(path, "old")

    def fail(_: int) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        write_private(path, "new")
    assert path.read_text() == "old"


def test_a_write_replaces_the_file_and_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("a much longer old content")
    path.chmod(0o644)
    write_private(path, "new")
    assert path.read_text() == "new"
    assert mode(path) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_services_get_the_homes_secrets_and_addresses(home: Home) -> None:
    given = stack.environment(home, ADDRESSES)
    made = home.credentials()
    assert given["REWARDLOOP_DATABASE_URL"] == "postgresql+psycopg://u:p@h/d"
    assert given["REWARDLOOP_API_KEY"] == made.api_key
    assert given["REWARDLOOP_ADMIN_KEY"] == made.admin_key
    assert json.loads(given["REWARDLOOP_GENERATOR_URLS"]) == ["http://g:2"]
    assert given["REWARDLOOP_JUDGE_UPSTREAM_URL"] == "http://g:2"
    assert given["REWARDLOOP_CHECKPOINT_ROOT"] == str(home.checkpoints)
    assert given["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize("service", NEEDS)
def test_a_service_gets_the_secrets_that_it_needs_and_no_others(home: Home, service: str) -> None:
    given = stack.environment(home, ADDRESSES, service)
    secrets = [name for name in SECRETS if given[f"REWARDLOOP_{name.upper()}"]]
    made = vars(home.credentials()).values()
    assert set(secrets) == NEEDS[service] & {"database_url", "broker_url", "api_key", "admin_key"}
    assert sum(value in made for value in given.values()) == len(
        NEEDS[service] & {"api_key", "admin_key"}
    )


def test_a_key_for_a_foreign_engine_reaches_the_service_that_asks_it(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(stack, "Process", lambda name, _, env, __: given.update({name: env}))
    keys = {f"REWARDLOOP_{of}_UPSTREAM_KEY": f"the {of} key" for of in ("JUDGE", "PROMPT")}
    ours = stack.Stack(home, keys)
    ours.addresses = ADDRESSES
    for module, *arguments in (["judge"], ["worker", "rollout"], ["generator.stub_engine"]):
        stack._service(ours, module, *arguments)
    held = {service: [name for name in keys if env[name]] for service, env in given.items()}
    assert held == {
        "judge": ["REWARDLOOP_JUDGE_UPSTREAM_KEY"],
        "worker": ["REWARDLOOP_PROMPT_UPSTREAM_KEY"],
        "generator.stub_engine": [],
    }


def test_settings_from_the_user_win_over_the_stacks_own(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(stack, "Process", lambda *arguments: given.extend(arguments))
    ours = stack.Stack(home, {"REWARDLOOP_JUDGE_UPSTREAM_URL": "http://big-judge:8001"})
    ours.addresses = ADDRESSES
    stack._service(ours, "judge")
    _, _, environment, _ = given
    assert environment["REWARDLOOP_JUDGE_UPSTREAM_URL"] == "http://big-judge:8001"
    assert environment["REWARDLOOP_PROMPT_UPSTREAM_URL"] == ""
