# make play | test | demo | record | setup. Each sets up .venv first; needs only Python 3.11 or newer and make.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
export PYTHONUNBUFFERED := 1

.DEFAULT_GOAL := help
.PHONY: help setup play demo record test lint format clean

help:        ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(STAMP)     ## create .venv and install everything into it

$(STAMP): pyproject.toml
	@echo "Setting up $(VENV): a few minutes the first time (PyTorch is large)."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check -e '.[model,games,dev]'
	@touch $@

play: setup         ## play the maze model that comes with the repository (CHECKPOINT=... for another)
	@$(BIN)/python play.py $(CHECKPOINT)

demo: setup         ## record, train, distil and measure a small maze model: 20 minutes on two cores
	@$(BIN)/python -m train pipeline --config configs/maze/quick.yaml

record: setup       ## record maze gameplay into runs/maze/data
	@$(BIN)/python -m data_collect record --game maze --player explorer --frames 20000 --workers 2 --out runs/maze/data

test: setup lint    ## linters, types, import layers, tests
	@$(BIN)/python -m pytest -q

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: setup       ## format the code and sort its imports
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:              ## remove .venv and caches (recordings and runs stay)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache *.egg-info
