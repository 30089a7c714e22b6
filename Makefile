# Every target explains itself: `make help`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
# What another processor, or another BLAS, makes of the same numbers; where the BLAS is not MKL, the first two do no harm.
PROCESSORS := MKL_CBWR=COMPATIBLE MKL_ENABLE_INSTRUCTIONS=AVX2 ATEN_CPU_CAPABILITY=default
SENSITIVE := $(addprefix tests/test_,$(addsuffix .py,backward_modes batching certificate degenerate dominant_pair \
  eigen_accuracy eigen_solvers forward gradient krylov_trust_region matrix_free nested_forward_mode \
  paper_less_solvers readme transforms))

.DEFAULT_GOAL := help
.PHONY: help setup run test test-threads test-portable test-fallback test-sanitized lint format docs clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 24

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[cli,examples,recipes,test,lint,bench]'
	touch $@

setup: $(VENV)/installed  ## make .venv and install pmaf with everything needed to run, test and lint

run: setup  ## run the paper's experiments, quick version, on real data into report/
	$(BIN)/pmaf reproduce all --quick --out report

# Small tensors gain nothing from more threads, and lose a thousandfold where other work keeps the cores busy.
test: setup  ## run the test suite, with one thread, and print the coverage
	OMP_NUM_THREADS=1 $(PYTEST) -n auto --dist loadgroup --cov=pmaf --cov-report=term:skip-covered --cov-fail-under=96

# Threads that wait sleep, so that the pass takes its time and not that of everything else on the machine.
test-threads: setup  ## run every layer and solver with torch's own number of threads, and with two
	PMAF_TEST_THREADS=default OMP_WAIT_POLICY=passive $(PYTEST) -n 1 tests/test_threads.py

test-portable: setup  ## run what is sensitive to rounding as three other processors would
	for processor in $(PROCESSORS); do \
	  echo "$$processor"; \
	  env OMP_NUM_THREADS=1 $$processor $(PYTEST) -n auto -m "not slow" $(SENSITIVE) || exit 1; \
	done

test-fallback: setup  ## run what the compiled kernels answer without them, as on machines that cannot have them
	OMP_NUM_THREADS=1 PMAF_KERNELS=off $(PYTEST) -n auto -m "not slow" $(SENSITIVE)

test-sanitized: setup  ## build the kernels' own tests under AddressSanitizer and UBSan, and run them
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake -S . -B build/sanitized -G Ninja -DPMAF_SANITIZE=ON
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake --build build/sanitized --target pmaf_kernels_test pmaf_sphere_test pmaf_generalised_test
	build/sanitized/pmaf_kernels_test
	build/sanitized/pmaf_sphere_test
	build/sanitized/pmaf_generalised_test

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
