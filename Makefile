# Everything runs in .venv, which is made on first use. `make demo` asks for nothing and needs python >= 3.11.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& command -v $$p && break; done)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-engines check format docs parity bench release clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 14

demo: $(VENV)/.base  ## train on the shipped data, evaluate, simulate, report (about ten minutes)
	$(BIN)/equiform demo
	@echo
	@echo "the command is $(BIN)/equiform; next:"
	@echo "  source $(BIN)/activate"
	@echo "  equiform info data.xyz                           # your own file: is it understood?"
	@echo "  equiform train data.xyz training.max_minutes=10"

test: $(VENV)/.test  ## the quick tests
	$(BIN)/python -m pytest -n $(WORKERS)

test-all: $(VENV)/.test  ## every test, the slow ones too
	$(BIN)/python -m pytest -n $(WORKERS) -m 'slow or not slow'

test-engines: $(VENV)/.engines  ## all tests of simulation programs, JAX MD, phonopy and i-PI too
	$(BIN)/python -m pytest -n $(WORKERS) -m 'slow or not slow' tests/deploy

check: $(VENV)/.dev  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: $(VENV)/.dev  ## write the format and the fixes that are safe
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.docs  ## the documentation as a web site, in site/
	$(BIN)/mkdocs build --strict

parity: $(VENV)/.base  ## compare with the stored references of the published code
	$(BIN)/python -m benchmarks.parity

bench: $(VENV)/.base  ## how fast it is on this machine, all cases and curves (about a quarter of an hour)
	$(BIN)/equiform benchmark all --repeats 15 --scaling --plot runs/benchmark --json runs/benchmark.json

release: $(VENV)/.base  ## build dist/, check it, and test the wheel in a fresh environment; uploads nothing
	rm -rf dist build/release
	$(PIP) build twine
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m twine check --strict dist/*
	$(PYTHON) -m venv build/release
	build/release/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	cd build/release && bin/equiform doctor && bin/equiform info equiform:ethanol_atoms.extxyz

clean:  ## remove caches and built files; runs/ and .venv/ stay
	rm -rf build dist site .pytest_cache .ruff_cache *.egg-info
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

# Installed editable, so that no target ever runs an old copy of the source. A stamp is older than pyproject.toml
# when a dependency may have changed; the larger sets of packages include the smaller ones.
$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "equiform needs python3 >= 3.11, and none was found; install one, or say" \
		"where it is: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.base: pyproject.toml | $(VENV)/.made
	@echo "installing equiform into $(VENV)"
	@$(PIP) --editable .
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/.made
	@echo "installing equiform and the test tools into $(VENV)"
	@$(PIP) --editable '.[test]'
	@touch $@ $(VENV)/.base

$(VENV)/.engines: pyproject.toml | $(VENV)/.made
	@echo "installing equiform, the test tools and the simulation programs into $(VENV)"
	@$(PIP) --editable '.[test,jaxmd,phonopy,ipi]'
	@touch $@ $(VENV)/.base $(VENV)/.test

$(VENV)/.dev: pyproject.toml | $(VENV)/.made
	@echo "installing equiform and the development tools into $(VENV)"
	@$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.test $(VENV)/.base

$(VENV)/.docs: pyproject.toml | $(VENV)/.made
	@echo "installing equiform and the documentation tools into $(VENV)"
	@$(PIP) --editable '.[docs]'
	@touch $@ $(VENV)/.base
