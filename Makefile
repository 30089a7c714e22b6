# Every target explains itself: `make help`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
.DEFAULT_GOAL := help
.PHONY: help setup run test lint format bench docs clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 16

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[cli,examples,test,lint,bench]'
	touch $@

setup: $(VENV)/installed  ## make .venv and install pmaf with everything needed to run, test and lint

run: setup  ## run the paper's experiments, quick version, on real data into report/
	$(BIN)/pmaf reproduce all --quick --out report

test: setup  ## run the test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto  # a process a core is enough

lint: setup  ## ruff, formatting, mypy --strict and the arrows between packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## let ruff rewrite the files
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup  ## build the documentation, strictly, into docs/_build/html
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs,cli,examples]'
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

clean:  ## remove what the other targets made
	rm -rf $(VENV) report build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache docs/_build
