# Set-up, demo and tests of mmsr. Assumes Python 3.11 or newer, make and pip; everything else goes into .venv.

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow notebooks bench lint types docs clean

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Say `make setup PYTHON=/path/to/python` to choose; otherwise the first of these that runs and fits.
PYTHON ?= python3 python3.13 python3.12 python3.11 python3.14
# A launcher may exist and not run, or lack venv or pip: only running it tells. torch has wheels for 3.11 to 3.14.
PYTHON_FITS := import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
VENV_FITS := import sys, pip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))

# More options for the command that a target runs: make test ARGS="-k fusion", make demo ARGS="--seed 1".
ARGS ?=
WORKERS ?= 2
OFFLINE := HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1

help:
	@echo "make demo       train on a small spoken corpus, evaluate, write the report, predict (sets up first)"
	@echo "make test       run the test suite (sets up first)"
	@echo "make test-slow  run the slow tests, which train"
	@echo "make notebooks  execute the notebooks and write them with their outputs (sets up first)"
	@echo "make bench      measure mmsr against what one would use in its place (sets up first; an hour)"
	@echo "make setup      create $(VENV) and install mmsr with its extras"
	@echo "make lint       ruff, and who may import whom (import-linter)"
	@echo "make types      mypy"
	@echo "make docs       build the documentation into site/ (installs the extra docs first)"
	@echo "make clean      remove builds and caches ($(VENV) and runs/ stay)"

setup: $(INSTALLED)
	@echo "Ready: $(BIN)/mmsr --help"

$(INSTALLED): pyproject.toml
	@if ! $(BIN)/python -c "$(VENV_FITS)" >/dev/null 2>&1; then \
	  for candidate in $(PYTHON); do \
	    if "$$candidate" -c "$(PYTHON_FITS)" >/dev/null 2>&1; then python=$$candidate; break; fi; \
	  done; \
	  if [ -z "$${python:-}" ]; then \
	    echo "No usable Python among: $(PYTHON)." >&2; \
	    echo "mmsr needs Python 3.11 to 3.14 with venv and pip (Debian, Ubuntu: apt install python3-venv)." >&2; \
	    echo "Name one that you have: make setup PYTHON=/path/to/python3.12" >&2; \
	    exit 1; \
	  fi; \
	  echo "Creating $(VENV) with $$("$$python" --version)."; \
	  "$$python" -m venv --clear $(VENV) || exit 1; \
	fi
	@echo "Installing mmsr and what it needs into $(VENV); the first time takes minutes (torch is large)."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[all,dev]" || { \
	  echo "The installation failed; pip's reason is above. Then run the same command again." >&2; exit 1; }
	@touch $@

demo: $(INSTALLED)
	@$(BIN)/mmsr demo $(ARGS)

test: $(INSTALLED)
	@$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not gpu" -n $(WORKERS) $(ARGS)

test-slow: $(INSTALLED)
	@$(OFFLINE) $(BIN)/python -m pytest -m "slow and not gpu" --timeout 1800 $(ARGS)

notebooks: $(INSTALLED)
	@$(BIN)/python notebooks/execute.py $(ARGS)

bench: $(INSTALLED)
	@$(OFFLINE) $(BIN)/python experiments/benchmarks/bench.py $(ARGS)

lint: $(INSTALLED)
	@$(BIN)/ruff check $(ARGS)
	@$(BIN)/lint-imports

types: $(INSTALLED)
	@$(BIN)/mypy $(ARGS)

# The theme warns of mkdocs 2, which nobody has to use; pip asks the network for nothing that is there.
docs: $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	@NO_MKDOCS_2_WARNING=1 COLUMNS=76 $(BIN)/mkdocs build --strict --quiet $(ARGS)
	@echo "open site/index.html"

clean:
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .coverage htmlcov
	find mmsr tests experiments -name __pycache__ -type d -prune -exec rm -rf {} +
