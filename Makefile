# Everything a newcomer needs: `make demo`, `make test`. `make help` lists the rest.
VENV := .venv
# The first that runs and is new enough (a version manager's shim may exist and not run).
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
RUN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Processes that share the tests. Those of real engines run one after another in one of them.
JOBS ?= 2
export HF_HUB_OFFLINE := 1
# Else each of the many processes that tests start would compile every file anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test test-unit chaos check bench paper-cpu bench-climb bench-filter formats gpu-check security clean
help:  ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## Install everything into .venv

$(STAMP): locks/all.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r locks/all.txt
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

demo: setup  ## One whole self-rewarding iteration on this machine
	$(RUN)/rewardloop demo $(DEMO_OPTIONS)

test: setup  ## All tests, whole iterations on real vLLM among them
	$(RUN)/python -m pytest -q -n $(JOBS) --cov --cov-report=term:skip-covered --cov-fail-under=90 tests

test-unit: setup  ## Unit tests only, in seconds
	$(RUN)/python -m pytest -q -n $(JOBS) tests/unit

chaos: setup  ## Kill every part again and again, a real vLLM too: is anything lost, or done twice?
	$(RUN)/python -m tests.chaos $(CHAOS_OPTIONS)

check: setup  ## Linters, types, and what may import what
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports

bench: setup  ## What each part costs, beside the same work without it (ONLY=name; all of them: hours)
	$(RUN)/python -m benchmarks $(ONLY)

paper-cpu: setup  ## M0 -> SFT -> M1 -> M2 -> M3 on this machine (TREES=file for your own rankings)
	$(RUN)/python -m benchmarks.paper_cpu $(if $(TREES),--trees $(TREES)) $(PAPER_OPTIONS)

bench-climb: setup  ## Does the model climb a hill that a known judge defines? (an hour or so)
	$(RUN)/python -m benchmarks.climb $(CLIMB_OPTIONS)

bench-coverage: setup  ## How often do the 95 % intervals hold the truth?
	$(RUN)/python -m benchmarks.coverage

bench-filter: setup  ## The cost of filtering 100,000 new prompts
	$(RUN)/python -m benchmarks.filter

formats: setup  ## Is each published dataset format read as its authors meant it?
	$(RUN)/python -m benchmarks.formats

gpu-check: setup  ## Speed and memory of the presets' trainings on this machine's GPU (8 minutes at most)
	$(RUN)/python -m benchmarks.gpu_check $(GPU_CHECK_OPTIONS)

security: setup  ## Attacks: forged scores, floods, keys, checkpoints, and 500 fuzzed requests an operation
	$(RUN)/python -m tests.security $(SECURITY_OPTIONS)

clean:  ## Remove what was built (not your home folder's data)
	rm -rf $(VENV) build *.egg-info .coverage* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
