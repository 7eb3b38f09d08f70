"""What a CPU engine's environment says of its threads."""

import os

import pytest

from services.generator.machine import SPIN_COUNT, cpu_environment

NAMES = ("VLLM_CPU_OMP_THREADS_BIND", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 1})


def test_every_core_is_bound_and_threads_do_not_spin_long() -> None:
    found = cpu_environment()
    assert found["VLLM_CPU_OMP_THREADS_BIND"] == "1,3"
    assert found["OMP_NUM_THREADS"] == "2"
    assert found["GOMP_SPINCOUNT"] == SPIN_COUNT
    assert int(SPIN_COUNT) <= 10_000


def test_what_the_environment_says_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "300000")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = cpu_environment()
    assert (found["GOMP_SPINCOUNT"], found["OMP_NUM_THREADS"]) == ("300000", "1")


def test_a_wait_policy_of_the_users_own_is_not_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    """libgomp follows GOMP_SPINCOUNT where both are set."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert "GOMP_SPINCOUNT" not in cpu_environment()
