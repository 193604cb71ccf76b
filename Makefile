# Two commands are all a fresh machine needs:  make demo   and   make test
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := runs/demo

.DEFAULT_GOAL := help
.PHONY: help demo test lint types tests system docs notebooks package hardening bench clean

help:  ## Say what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "neuralcollapse needs Python >= 3.11, but $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

# pip, not uv: constraints.txt pins a CPU build of torch, which pip finds and uv does not.
$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/.installed  ## Train on the embedded digits, measure, and write runs/demo/report.html
	@rm -rf $(DEMO)
	$(BIN)/neuralcollapse train --preset demo --out $(DEMO)
	@echo "Open $(DEMO)/report.html in a browser."

test: lint types tests  ## Set up, lint, type-check and test

lint: $(VENV)/.dev
	$(BIN)/ruff check src tests benchmarks examples hardening conftest.py

types: $(VENV)/.dev
	$(BIN)/mypy

tests: $(VENV)/.dev
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

system:  ## Install the Debian package that the browser tests need (they are skipped without it)
	@command -v chromium >/dev/null || (apt-get update -q && apt-get install -q -y --no-install-recommends chromium)

docs: $(VENV)/.dev  ## Build the documentation into site/, every link checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "Open site/index.html in a browser, or run $(BIN)/mkdocs serve."

notebooks: $(VENV)/.dev  ## Make examples/notebooks from the scripts beside them
	@mkdir -p examples/notebooks
	@for script in examples/*.py; do $(BIN)/jupytext --quiet --to ipynb --output examples/notebooks/$$(basename $$script .py).ipynb $$script; done

package: $(VENV)/.dev  ## Build wheel and sdist, check them, install and use each in an empty environment
	$(BIN)/python hardening/packages.py

hardening: $(VENV)/.dev  ## Fuzz, kill, check in 50 digits, soak, install; writes docs/reliability.md (half an hour)
	$(BIN)/python hardening/run.py

bench: $(VENV)/.dev  ## Run every benchmark and print its ratios (see benchmarks/RESULTS.md)
	@for script in benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:  ## Remove the environment and everything that was made
	rm -rf $(VENV) runs site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
