# browserkeeper: `make demo` and `make test` do all of their own set-up on a fresh Debian.
# Everything else is in `make help`.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
N      ?= 200
SEED   ?=

.DEFAULT_GOAL := help
.PHONY: help demo test check faults soak bench clean setup-demo setup

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup-demo ## a real browser on the local site, and its verified end
	@$(BIN)/python -m examples.scrape

test: setup ## everything, with real chromium, firefox and redis
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest

check: $(VENV)/.ready ## types and style only
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

faults: setup ## N=200 random faults against real browsers (SEED=… repeats a draw)
	@$(BIN)/python -m tests.system.faults --n $(N) $(if $(SEED),--seed $(SEED))

soak: setup ## N=200 tasks through one pool, faults among them (SEED=… repeats a draw)
	@$(BIN)/python -m tests.pool.soak --n $(N) $(if $(SEED),--seed $(SEED))

bench: setup ## the figures, side by side in one run, into benchmarks/RESULTS.md
	@$(BIN)/python -m pip install -q --group bench
	@$(BIN)/python -m benchmarks

clean: ## remove what make made
	rm -rf $(VENV) .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup-demo: $(VENV)/.ready
	@./scripts/system.sh demo

setup: $(VENV)/.ready
	@./scripts/system.sh test

$(VENV)/.ready: pyproject.toml scripts/venv.sh
	@PYTHON=$(PYTHON) ./scripts/venv.sh $(VENV)
	@touch $@
