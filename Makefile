# make play | test | test-fast | demo | record | setup. Each sets up .venv first; needs only Python 3.11 or newer and make.
# make test PYTEST='-k web' gives pytest more arguments.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PIP    := $(BIN)/python -m pip install --disable-pip-version-check
export PYTHONUNBUFFERED := 1

.DEFAULT_GOAL := help
.PHONY: help setup play demo record test test-fast packages lint docs format pygame clean

help:        ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(STAMP)     ## create .venv and install everything into it (CPU=1: PyTorch without GPU libraries)

$(STAMP): pyproject.toml
	@echo "Setting up $(VENV): a few minutes the first time (PyTorch is large)."
	@test -n '$(PYTHON)' || { echo 'Python 3.11 or newer is missing; name one: make PYTHON=/path/to/python3.11'; exit 2; } >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 2; }
	@test -z '$(CPU)' || $(PIP) torch torchvision --index-url https://download.pytorch.org/whl/cpu
	@$(PIP) -e '.[model,games,export,remote,ray,dev]'
	@touch $@

play: setup         ## choose a dream and play it (CHECKPOINT=doom, or a file: that one at once)
	@$(BIN)/python play.py $(CHECKPOINT)

demo: setup         ## record, train, distil and measure a small maze model: 20 minutes on two cores
	@$(BIN)/python -m train pipeline --config configs/maze/quick.yaml --minutes 19

record: setup       ## record maze gameplay into runs/maze/data
	@$(BIN)/python -m data_collect record --game maze --player explorer --frames 20000 --workers 2 --out runs/maze/data

test: setup lint    ## linters, types, import layers, tests (a process a core)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder $(PYTEST)

test-fast: setup    ## the tests that are not marked slow: under 90 seconds on two cores
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder -m 'not slow' $(PYTEST)

packages:           ## install what tests of real windows and browsers need (Debian; as root)
	@.ci/packages

lint: setup         ## linters, types, import layers, links of the documents
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@for platform in linux darwin win32; do $(BIN)/mypy --platform $$platform --cache-dir .mypy_cache/$$platform || exit 1; done
	@$(BIN)/lint-imports
	@$(BIN)/vulture
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir build/links

docs: setup         ## the documents as a site, build/site/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo build/site/index.html

format: setup       ## format the code and sort its imports
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

pygame: setup       ## mend pygame-ce after another package has brought the old pygame along
	@$(BIN)/python -m pip uninstall --yes --quiet pygame pygame-ce
	@$(PIP) pygame-ce

clean:              ## remove .venv and caches (recordings and runs stay)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache *.egg-info
