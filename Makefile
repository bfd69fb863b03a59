# Every target installs what it needs into .venv by itself. `make` lists the targets.
# What follows ARGS= is handed to the program: make bench ARGS=--quick

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
CONSTRAINTS := constraints.txt

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format bench reproduce policies docs clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed  ## Make .venv with the package, editable, and the tools of development

demo: $(VENV)/.installed  ## Clone an expert with an MPC and an MLP policy, compare them, write videos/
	$(BIN)/mpc-gym demo

test: $(VENV)/.installed  ## Run the tests, all but the slow ones, on two processes
	$(BIN)/pytest -n 2 --dist worksteal -m "not slow"

lint: $(VENV)/.installed  ## Check style, format, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed  ## Format the code and repair what ruff can repair
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.installed-bench  ## Measure speed side by side with other solvers
	$(BIN)/python -m benchmarks.solver $(ARGS)

reproduce: $(VENV)/.installed  ## Run the experiments of the paper and write a report of what they show
	$(BIN)/python -m reproduction $(ARGS)

policies: $(VENV)/.installed  ## Make the policies that come with the package anew, and score them
	$(BIN)/python -m mpc_gym.experiments.make_pretrained $(ARGS)

docs: $(VENV)/.installed-docs  ## Build the documentation into site/
	$(BIN)/mkdocs build --strict

clean:  ## Remove .venv, the caches and what was built
	rm -rf $(VENV) build dist site .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

# A stamp is newer than the files it was made from, so an install runs again only when they change.
$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and \
		f"mpc_gym needs Python 3.10 or newer; $(PYTHON) is {sys.version.split()[0]}. Try: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install "$$(grep '^torch==' $(CONSTRAINTS))"
	$(PIP) install -c $(CONSTRAINTS) -e ".[dev]"
	@touch $@

# Without dependencies: mpc 0.0.6 asks for numpy < 2 but runs on the pinned one, and the rest is here.
$(VENV)/.installed-bench: $(VENV)/.installed
	$(PIP) install --no-deps -c $(CONSTRAINTS) casadi mpc
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) install -c $(CONSTRAINTS) -e ".[docs]"
	@touch $@
