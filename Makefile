# `make run` and `make test` need Python 3.11+, make and a package index; everything else they install into .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check

# These start no graph, so several run at a time. Those that mostly wait fill the others' gaps, unless coverage is measured.
BUSY    := tests/unit tests/contract tests/simulators tests/simulation tests/security tests/supply_chain tests/chaos
WAITING := tests/e2e/page tests/e2e/cli
# What takes long: with a graph of its own or a pace to measure, and what mostly waits.
LONG    := tests/chaos/test_chaos_short.py tests/e2e/test_serve_run.py tests/e2e/test_restart.py tests/e2e/test_load.py \
           tests/e2e/test_dashboards.py tests/e2e/test_evaluation_workers.py tests/e2e/test_shadow.py tests/e2e/test_trials.py \
           tests/simulators/load_tests tests/nodes
# What has a command of its own.
ALONE   := tests/chaos/test_evaluation_killed_long.py
PATIENT := tests/contract/test_models_peers.py \
           $(patsubst %,tests/e2e/page/test_%.py,continuity unsent branches connection approvals)
IGNORED := $(LONG:%=--ignore=%) $(PATIENT:%=--ignore=%) $(ALONE:%=--ignore=%)
COVERAGE ?=  # --cov: what runs without a graph must be covered; that doubles its time

unexport PYTHONDONTWRITEBYTECODE  # bytecode compiled once makes every start several times faster

.DEFAULT_GOAL := help

# A load test and a plan from it; SCENARIO=… LOAD="--rate 10 --duration 2m" USERS=… PLAN="--machine …" REPORT=…
SCENARIO ?= steps
USERS    ?= 50000
REPORT   ?= reports/$(notdir $(basename $(SCENARIO)))-$(shell date +%Y%m%d-%H%M%S)
REPORT   := $(REPORT)
LOAD     ?=
PLAN     ?= --turns-per-user-hour 6

# An evaluation; RUN=… EVAL="--limit 20 --workers 2"
RUN      ?= configs/eval/crm_hr.yaml
EVAL     ?=

.PHONY: help setup setup-test run load eval eval-killed test test-azure lint security chaos capacity-test test-long peers lock benchmark clean

help:  ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.installed  ## make the environment from the lock file

setup-test: $(VENV)/.installed-test

run: setup  ## start everything on http://127.0.0.1:8000
	@exec $(BIN)/parley serve

load: setup-test  ## how much a graph of this machine carries: a report, and a plan for 50,000 users (SCENARIO=steps LOAD=…)
	@$(BIN)/parley load run $(SCENARIO) --start --report $(REPORT) $(LOAD) || code=$$?; \
	  test "$${code:-0}" -le 1 -a -f $(REPORT)/report.json || exit $${code:-1}; \
	  $(BIN)/parley capacity plan --report $(REPORT) --users $(USERS) $(PLAN) || exit; \
	  echo "Report: $(REPORT)/report.html"; exit $${code:-0}

eval: setup  ## two versions of a prompt over 208 cases: a report of what got better and worse (RUN=… EVAL=…)
	@$(BIN)/parley eval run $(RUN) $(EVAL)

eval-killed: setup-test  ## kill an evaluation of 500 cases ten times: each is run and counted once (10 minutes)
	$(BIN)/python -m pytest $(ALONE)

test: setup-test peers  ## run the whole suite
	$(BIN)/python -m pytest -n 4 $(BUSY) $(if $(strip $(COVERAGE)),,$(WAITING)) $(IGNORED) $(COVERAGE)
	$(if $(strip $(COVERAGE)),$(BIN)/python -m pytest -n 4 $(WAITING) $(IGNORED))
	$(BIN)/python -m pytest tests/integration tests/e2e $(WAITING:%=--ignore=%) $(IGNORED) -k "not azure"

test-azure: setup-test  ## the store's tests on an account of yours: COSMOS_ENDPOINT=… COSMOS_KEY=…
	@test -n "$(COSMOS_ENDPOINT)" -a -n "$(COSMOS_KEY)" \
	  || { echo "Name an account that tests may make databases in: make test-azure COSMOS_ENDPOINT=https://… COSMOS_KEY=…"; exit 2; }
	@COSMOS_ENDPOINT="$(COSMOS_ENDPOINT)" COSMOS_KEY="$(COSMOS_KEY)" $(BIN)/python -m pytest -k cosmos --timeout 600 \
	  tests/contract tests/simulators/storage

test-long: setup-test peers  ## what takes long: end to end over Azure's stores, restarts, load tests, nodes that die, a short seeded form of chaos
	$(BIN)/python -m pytest tests/e2e $(WAITING:%=--ignore=%) -k azure
	$(BIN)/python -m pytest -n 4 $(PATIENT)
	$(BIN)/python -m pytest $(LONG)
	$(BIN)/python -m pytest tests/capacity -k "named and tool"

chaos: setup-test  ## kill, stall and cut a running graph, and print what became of its turns
	$(BIN)/python -m tests.chaos $(CHAOS)

capacity-test: setup-test  ## predict the limit of graphs that are slow on purpose, measure it, and compare (10 minutes)
	$(BIN)/python -m pytest -s tests/capacity -k within_a_fifth

lint: setup-test  ## format, lint, import direction, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

security: setup-test  ## what bandit finds, versions known to be unsafe, new .pth files; the tests of the same are in `make test`
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive --severity-level medium serve_app deployments
	$(BIN)/python -m tests.supply_chain

peers:  ## programs of others that the suite talks to, where npm is there
	@if command -v npm >/dev/null 2>&1; then \
	  for peer in tests/peers tests/peers_ai_sdk; do \
	    npm ci --prefix $$peer --no-audit --no-fund --silent || exit 1; done; \
	else echo "npm is not installed: the tests against npm peers are skipped"; fi

lock: setup-test  ## lock the newest versions that pyproject.toml allows
	$(PIP) install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --group build \
	  pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --group build --group dev --extra redis --extra anthropic --extra google --extra load --extra eval \
	  -c requirements.lock pyproject.toml -o requirements-test.lock

benchmark: setup-test  ## the channel between stages, on this machine
	$(BIN)/python load_tests/channel_benchmark.py

clean:  ## remove the environment (never the data)
	rm -rf $(VENV)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Parley needs Python 3.11 or newer; name one with PYTHON=… (this is $$($(PYTHON) --version))"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.lock pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --require-hashes -r requirements.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-test: requirements-test.lock $(VENV)/.installed
	$(PIP) install --quiet --require-hashes -r requirements-test.lock
	@touch $@
