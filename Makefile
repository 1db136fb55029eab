# `make up` runs Onceseen, `make test` tests it; both do all the set-up there is. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
PY := $(VENV)/bin/python
PORT ?= 8000
DATA ?= ./onceseen-data
# The first Python that is new enough; PYTHON=... chooses another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)

.PHONY: help up test test-all chaos bench lint format clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(PY):
	@test -n "$(PYTHON)" || { echo "Onceseen needs Python 3.11 or newer with its venv module (on Debian: apt install python3-venv)."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.run

up: $(VENV)/.run ## run the server, its workers and the pages on http://127.0.0.1:8000 (PORT=..., DATA=...)
	@exec $(VENV)/bin/onceseen up --data $(DATA) --port $(PORT)

test: $(VENV)/.dev ## the tests (minutes)
	$(PY) -m pytest -m "not long" -n auto --dist loadfile

test-all: $(VENV)/.dev ## the tests with the long ones
	$(PY) -m pytest

chaos: $(VENV)/.dev ## kills, freezes, power cuts, bad disks and a referee, longer than in `make test`
	$(PY) -m pytest tests/chaos tests/faults

bench: $(VENV)/.run ## every way in against the bare model, as ratios of one run (MODEL=..., IMAGES=...; minutes)
	$(VENV)/bin/onceseen bench $(if $(MODEL),--model $(MODEL)) $(if $(IMAGES),--images $(IMAGES))

lint: $(VENV)/.dev ## formatting, lint, types, import contract
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(VENV)/.dev ## format and mend what can be mended
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

clean: ## remove the environment and what tools left behind
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist
