# Everything starts from a fresh machine: each target makes its own virtual environment first.
.DEFAULT_GOAL := help
SHELL := /bin/sh
VENV ?= .venv
PY := $(VENV)/bin/python
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
STAMP := $(VENV)/.installed
RIVALS := $(VENV)/rivals
# A lock is complete, so nothing is resolved: an older pip takes `coverage[toml]`, which a locked package asks for, for a
# requirement of its own and looks for its newest release. What would be missing is found by `pip check`.
FROM_LOCK := -qq --disable-pip-version-check --require-hashes --no-deps --only-binary :all:
# Most tests wait for processes of their own, so twice as many at once as there are cores; in lanes: see tests/lanes.py.
PYTEST ?= $(PY) -m pytest -n 4 --dist loadfile --no-loadscope-reorder
# Compiled modules and rewritten tests are kept: a test process would need seconds to make them anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test check coverage bench lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

$(STAMP): requirements-dev.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "cohort-sync needs Python 3.11 or newer with the venv module: install it, or name it with make PYTHON=..."; exit 2; }
	@echo "installing into $(VENV) (once; a minute or two)"
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install $(FROM_LOCK) -r requirements-dev.lock
	@$(PY) -m pip check --disable-pip-version-check
	@$(PY) -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP)  ## the main job on this machine, against the sandbox vendors
	@$(VENV)/bin/cohort-sync demo

test: $(STAMP)  ## lint, types, layout rules and every test
	@$(MAKE) --no-print-directory check
	@$(PYTEST) tests --ignore=tests/benchmarks

check: $(STAMP)  ## ruff, mypy, import-linter only
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --no-cache

coverage: $(STAMP)  ## branch coverage of the tests that run in one process
	@$(PYTEST) tests/unit tests/contract tests/integration --cov --cov-report=term

$(RIVALS)/.installed: tests/benchmarks/rivals.lock | $(STAMP)
	@$(PYTHON) -m venv $(RIVALS)
	@$(RIVALS)/bin/python -m pip install $(FROM_LOCK) -r tests/benchmarks/rivals.lock
	@$(RIVALS)/bin/python -m pip check --disable-pip-version-check
	@touch $@

bench: $(STAMP) $(RIVALS)/.installed  ## measure beside the rivals and print ratios (20 minutes); BENCH="beat waiting" for some
	@COHORT_SYNC_RIVALS_PYTHON=$(RIVALS)/bin/python $(PY) -m tests.benchmarks $(BENCH)

lock: $(STAMP)  ## resolve the locks anew (hashes, no registry host)
	@$(PY) -m pip install --quiet uv
	@$(VENV)/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header pyproject.toml -o requirements.lock
	@$(VENV)/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --extra dev pyproject.toml -o requirements-dev.lock
	@$(VENV)/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header tests/benchmarks/rivals.in -o tests/benchmarks/rivals.lock

clean:  ## remove the virtual environment and caches
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
