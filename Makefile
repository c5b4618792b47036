# Everything starts from a fresh machine: each target makes its own virtual environment first.
.DEFAULT_GOAL := help
SHELL := /bin/sh
VENV ?= .venv
PY := $(VENV)/bin/python
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
STAMP := $(VENV)/.installed
RIVALS := $(VENV)/rivals
TOOLS := $(VENV)/tools
# Ids of known vulnerabilities that do not reach us and have no fix yet, each with its reason here.
AUDIT_ACCEPTS :=
DIST := dist
NAME_VERSION = $(shell $(TOOLS)/bin/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; print(p["name"].replace("-", "_") + "-" + p["version"])')
# Most tests wait for processes of their own, so twice as many at once as there are cores; in lanes: see tests/lanes.py.
PYTEST ?= $(PY) -m pytest -n 4 --dist loadfile --no-loadscope-reorder
# Compiled modules and rewritten tests are kept: a test process would need seconds to make them anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-fast chaos fuzz check audit coverage bench dist lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

$(STAMP): requirements-dev.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "cohort-sync needs Python 3.11 or newer with the venv module: install it, or name it with make PYTHON=..."; exit 2; }
	@echo "installing into $(VENV) (once; a minute or two)"
	@$(PYTHON) -m venv $(VENV)
	@deploy/install-lock.sh $(VENV) requirements-dev.lock
	@$(PY) -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP)  ## the main job on this machine, against the sandbox vendors
	@$(VENV)/bin/cohort-sync demo

test: $(STAMP)  ## lint, types, layout rules and every test
	@$(MAKE) --no-print-directory check
	@$(PYTEST) tests --ignore=tests/benchmarks

test-fast: $(STAMP)  ## lint, types, layout rules, unit and contract tests: no running product
	@$(MAKE) --no-print-directory check
	@$(PYTEST) tests/unit tests/contract

SECONDS := 600
SEED := 1
DB := sqlite
chaos: $(STAMP)  ## a running product with everything going wrong: SECONDS=600 SEED=1 DB=sqlite (or postgresql)
	@$(PY) -m tests.chaos --seconds $(SECONDS) --seed $(SEED) --db $(DB)

fuzz: $(STAMP)  ## every door, with what nobody expects: SECONDS=600 SEED=1
	@$(PY) -m tests.fuzz --seconds $(SECONDS) --seed $(SEED)

check: $(STAMP)  ## ruff, mypy, import-linter and the audit only
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --no-cache
	@$(MAKE) --no-print-directory audit

audit: $(TOOLS)/.installed  ## known vulnerabilities of what is locked, once a day
	@$(TOOLS)/bin/python -m tests.audit requirements-dev.lock $(AUDIT_ACCEPTS:%=--accept %)

coverage: $(STAMP)  ## branch coverage of the tests that run in one process
	@$(PYTEST) tests/unit tests/contract tests/integration --cov --cov-report=term

$(RIVALS)/.installed: tests/benchmarks/rivals.lock
$(TOOLS)/.installed: deploy/tools.lock
$(RIVALS)/.installed $(TOOLS)/.installed: | $(STAMP)
	@$(PYTHON) -m venv $(@D)
	@deploy/install-lock.sh $(@D) $<
	@touch $@

bench: $(STAMP) $(RIVALS)/.installed  ## measure beside the rivals and print ratios (20 minutes); BENCH="beat waiting" for some
	@COHORT_SYNC_RIVALS_PYTHON=$(RIVALS)/bin/python $(PY) -m tests.benchmarks $(BENCH)

dist: $(TOOLS)/.installed  ## a release: wheel, sdist, pins, SBOM of the lock and checksums, in dist/
	@rm -rf $(DIST) cohort_sync.egg-info
	@$(TOOLS)/bin/uv build -q --offline --no-build-isolation --python $(TOOLS)/bin/python --out-dir $(DIST)
	@rm -f $(DIST)/.gitignore
	@sed -nE 's/^([a-z0-9._-]+==[^\\]*[^\\ ]).*/\1/p' requirements.lock > $(DIST)/constraints.txt
	@$(TOOLS)/bin/python -W ignore -m cyclonedx_py requirements --pyproject pyproject.toml --output-reproducible --of JSON \
		-o $(DIST)/$(NAME_VERSION).cdx.json requirements.lock
	@cd $(DIST) && $$(command -v sha256sum || echo shasum -a 256) cohort_sync-* constraints.txt > SHA256SUMS && cat SHA256SUMS

# `pip` is left out: it can't replace itself while it installs, and every environment has one.
COMPILE = $(TOOLS)/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header \
	--unsafe-package pip $(UPGRADE)
lock: $(TOOLS)/.installed  ## resolve the locks, keeping what still fits; UPGRADE=--upgrade for the newest of everything
	@$(COMPILE) pyproject.toml -o requirements.lock
	@$(COMPILE) --constraints requirements.lock --extra dev pyproject.toml -o requirements-dev.lock
	@$(COMPILE) --constraints requirements-dev.lock deploy/build.in -o deploy/build.lock
	@$(COMPILE) --constraints requirements-dev.lock deploy/tools.in -o deploy/tools.lock
	@$(COMPILE) tests/benchmarks/rivals.in -o tests/benchmarks/rivals.lock

clean:  ## remove the virtual environment, caches and what was built
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage* build $(DIST) cohort_sync.egg-info
