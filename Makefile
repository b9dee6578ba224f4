# `make` alone lists what there is.
.DEFAULT_GOAL := help
.PHONY: help setup gpu data repro test test-slow lint ui study serve lock

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Stages are started by DVC as `python -m src.stages.…`: that python is the environment's.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export TF_CPP_MIN_LOG_LEVEL ?= 2
# uv installs several times faster; pip does the same from the same lock.
UV := $(shell command -v uv 2>/dev/null)
ifdef UV
INSTALL := uv pip install --compile-bytecode --quiet --python $(BIN)/python --require-hashes
MADE := test -x $(BIN)/python
else
INSTALL := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --require-hashes
# An environment whose making was interrupted has a Python, and no pip.
MADE := $(BIN)/python -m pip --version >/dev/null 2>&1
endif

# Named where the data are the demo: without a remote's name, and without a default one, DVC warns.
DEMO = $(if $(shell grep -s "remote: demo" data.dvc),--remote demo)

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Each stamp holds the environment to the lock it was made from.
$(VENV)/.runtime: requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit(f"error: Python 3.11, 3.12 or 3.13 is needed, this is {v[0]}.{v[1]}. Name another: make PYTHON=python3.12 setup")'
	@$(MADE) || { echo "making $(VENV)"; $(PYTHON) -m venv --clear $(VENV) || { echo "error: Python could not make $(VENV). On Debian and Ubuntu install python3-venv, then give the same command again." >&2; exit 1; }; }
	@echo "checking the packages of requirements.lock (to install all takes a few minutes)"
	@$(INSTALL) -r requirements.lock
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	@echo "installing the packages of requirements-dev.lock"
	@$(INSTALL) -r requirements-dev.lock
	@touch $@

setup: $(VENV)/.runtime  ## make .venv and install what requirements.lock names

gpu: $(VENV)/.runtime  ## add the CUDA libraries for TensorFlow
	@$(INSTALL) -r requirements-gpu.lock

data: setup  ## the demo data, unless data/ is there
	@test -e data || { echo "fetching the demo data from demo-remote/"; dvc pull --quiet $(DEMO) data.dvc; }

# The parameters first: where a word stands in place of a list, DVC stops before any stage.
repro: data  ## set up, get the demo data, run the pipeline
	@$(BIN)/python -m src.stages.parameters
	@dvc repro
	@echo "done. Look at it: open reports/report.html, make ui"
	@git diff --quiet HEAD -- dvc.lock params.yaml 2>/dev/null || echo "Keep it, to compare later runs with and to come back to: git commit -m 'First results' dvc.lock params.yaml"

# A process a core; the tests of a file stay in one, which makes what they share once.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test: $(VENV)/.dev data  ## set up and run the tests
	@$(PYTEST) -m "not slow"

test-slow: $(VENV)/.dev data  ## run the slow proofs as well
	@$(PYTEST)

lint: $(VENV)/.dev  ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

ui: setup  ## the MLflow UI on http://127.0.0.1:5000 (PORT=… for another port)
	@$(BIN)/python -m src.ui --port $(or $(PORT),5000)

study: setup  ## Optuna's dashboard of the studies on http://127.0.0.1:8080 (PORT=… for another)
	@$(BIN)/python -m src.dashboard --port $(or $(PORT),8080)

serve: setup  ## the registered model on http://127.0.0.1:5002 (PORT=… for another port)
	@$(BIN)/python -m src.serve --port $(or $(PORT),5002)

lock:  ## make the lock files anew from pyproject.toml (needs uv)
	uv pip compile --quiet --no-header --universal --generate-hashes --python-version 3.11 --upgrade pyproject.toml -o requirements.lock
	uv pip compile --quiet --no-header --universal --generate-hashes --python-version 3.11 pyproject.toml --extra dev -c requirements.lock -o requirements-dev.lock
	uv pip compile --quiet --no-header --universal --generate-hashes --python-version 3.11 pyproject.toml --extra gpu -c requirements.lock -o requirements-gpu.lock
