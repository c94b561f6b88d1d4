# Everything runs in .venv, which is made here when missing. A stamp in it remembers what is installed.
#
#   make run      set up and start a gateway with a user, a token and a channel that answers without a network
#   make test     set up and check everything: lint, types, tests (import direction and packaging are tests)
#   make bench    cost per request and per event against nginx and a bare proxy; prints a table
#   make help     print this
#   make soak     hours: steady load (memory, tasks, sockets and files stay flat), 500 kills, databases that pause

PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11,$(if $(shell $(name) -c 'import sys; print(sys.version_info >= (3, 11) or "")' 2>/dev/null),$(name))))
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
RUNS := $(VENV)/.installed
TESTS := $(VENV)/.installed-dev
PYTEST_FLAGS := $(if $(filter true 1,$(CI)),--fail-on-skip)

.PHONY: help run test lint types bench soak clean
.DEFAULT_GOAL := test

help:
	@sed -n 's/^#   //p' Makefile

run: $(RUNS)
	$(BIN)/tollway demo

test: lint types
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

lint: $(TESTS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(TESTS)
	$(BIN)/basedpyright

bench: $(TESTS)
	$(BIN)/python tests/bench/bench.py $(ARGS)

soak: $(TESTS)
	$(BIN)/python tests/bench/steady.py $(ARGS)
	$(BIN)/python -m pytest tests/e2e/test_kills.py tests/e2e/test_database_away.py --kills 500 --pause 30 --timeout 14400

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Tollway needs Python 3.11 or later, and no python3 on the PATH is." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

$(RUNS): pyproject.toml | $(BIN)/python
	$(PIP) install --editable .
	@touch $@

$(TESTS): pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[dev]'
	@touch $(RUNS) $@
