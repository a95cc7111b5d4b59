# A fresh machine with Python >= 3.11 needs `make demo` and `make test`; both build .venv themselves.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PYTEST := $(BIN)/python -m pytest -q

.PHONY: demo test test-all lint format bench docs clean

.venv/stamp-test: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) -e ".[graphs,data,peers,test]"
	@touch $@

.venv/stamp-dev: .venv/stamp-test
	$(INSTALL) -e ".[dev]"
	@touch $@

.venv/stamp-docs: .venv/stamp-test
	$(INSTALL) -e ".[docs]"
	@touch $@

demo: .venv/stamp-test  ## one report on embedded data, in runs/demo
	$(BIN)/settle demo

test: .venv/stamp-test  ## the unit suite and the examples in docstrings
	$(PYTEST) -m "not slow and not gpu" --doctest-modules tests src

test-all: .venv/stamp-test  ## the slow tests too
	$(PYTEST) -m "not gpu" --doctest-modules tests src

lint: .venv/stamp-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright

format: .venv/stamp-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/stamp-test
	$(BIN)/settle bench

docs: .venv/stamp-docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf build dist site .pytest_cache .ruff_cache .hypothesis .coverage
