# Each target does all of its own set-up: `make run` and `make test` work on a fresh clone.
# Needed: Linux, Python 3.11 or later, a C compiler (for the few dependencies without a wheel for your machine),
# for the tests of the sandbox libseccomp (Debian: libseccomp2).

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Python to build .venv with; found by itself when it is not given.
PYTHON ?=
# The directory whose files `make run` turns into jobs.
DIR ?=
# More words for pytest, for example PYTEST_ARGS="-k recover -x".
PYTEST_ARGS ?=
# More words for the benchmarks, for example BENCH_ARGS="--quick --json figures.json".
BENCH_ARGS ?=

# COVERAGE=1 counts the lines and branches that are run, in forked children too; `make report` shows them.
COVERAGE ?=
# COVERAGE_FILE is absolute, because the processes under test work in other directories.
PYTEST := $(if $(COVERAGE),COVERAGE_FILE=$(CURDIR)/.coverage $(BIN)/coverage run -m,$(BIN)/python -m) pytest -q -n auto
CANDIDATES := $(PYTHON) python3 python3.11 python3.12 python3.13 python3.14 \
	$(wildcard $(HOME)/.pyenv/versions/3.1[1-9]*/bin/python3)

.DEFAULT_GOAL := help
.PHONY: help setup run test lint types check coverage report bench bench-peers bench-check clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

setup: $(STAMP) ## Make .venv and install rqsup in it (the other targets do this themselves)

run: $(STAMP) ## Turn a directory of real files into jobs, kill a worker, lose nothing (DIR=/some/where)
	@$(BIN)/rqsup demo $(if $(DIR),"$(DIR)")

test: $(STAMP) ## Run all tests, with a private Redis server and real processes
	@$(PYTEST) $(PYTEST_ARGS)

lint: $(STAMP) ## Check format and style
	@$(BIN)/ruff format --check --quiet . || { echo 'run: $(BIN)/ruff format .'; exit 1; }
	@$(BIN)/ruff check --quiet .

types: $(STAMP) ## Check all types, by mypy and by pyright
	@$(BIN)/mypy
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright

check: lint types test ## What has to pass before a commit: lint, types, test

coverage: $(STAMP) ## Run all tests and demand 90 % of lines and branches, forked children included
	@$(BIN)/coverage erase
	@$(MAKE) --no-print-directory test COVERAGE=1
	@$(MAKE) --no-print-directory report

report: $(STAMP)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report --fail-under=90

bench: $(STAMP) ## Measure rqsup by itself, in less than three minutes (BENCH_ARGS="--json FILE")
	@$(BIN)/python -m benchmarks $(BENCH_ARGS)

bench-peers: $(STAMP) ## Install ten other queues, and measure all side by side (BENCH_ARGS="--peers rq,rqsup --quick")
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@$(BIN)/python -m benchmarks.peers $(BENCH_ARGS)

bench-check: $(STAMP) ## Compare ratios with the stored ones; fails on a loss of more than 15 %, 75 = too noisy to tell
	@$(BIN)/python -m benchmarks.check $(BENCH_ARGS)

clean: ## Remove what the other targets made
	@rm -rf $(VENV) .bench .coverage .coverage.* htmlcov .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A candidate counts only if it runs: a name on PATH may be a stand-in for a version that is not installed.
$(STAMP): pyproject.toml
	@set -e; found=; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		for candidate in $(CANDIDATES); do \
			if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
			then found=$$candidate; break; fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo 'No Python 3.11 or later with the module venv was found.' >&2; \
			echo 'Install one (Debian: apt install python3-venv), or name it: make PYTHON=/path/to/python3' >&2; exit 1; \
		fi; \
		echo "Setting up $(VENV) with $$($$found --version) ..."; \
		"$$found" -m venv --clear $(VENV); \
	fi; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,embedded]'; \
	touch $@
