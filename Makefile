# browserkeeper: `make demo` and `make test` do all of their own set-up on a fresh Debian.
# Everything else is in `make help`.  `pytest tests/pool` works too, from the virtual environment.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
N      ?= 200
SECONDS ?= 300
SEED   ?=
LANES  ?=
K      ?= 1
OVER   ?= both

.DEFAULT_GOAL := help
# Without cached bytecode every guard and every command line in the tests compiles its modules again.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help demo test quick check faults bystanders host soak soak-server bench compat docs clean setup-demo setup

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup-demo ## a real browser on the local site, and its verified end
	@$(BIN)/python -m examples.scrape

test: setup ## the checks, and all tests with real browsers and daemons, in lanes (LANES=3)
	@$(BIN)/python -m scripts.lanes $(if $(LANES),--lanes $(LANES))

quick: $(VENV)/.ready ## tests that need no browser and no daemon, in parallel; for the inner loop
	@$(BIN)/python -m scripts.lanes --quick $(if $(LANES),--lanes $(LANES))

check: $(VENV)/.ready ## types and style only
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

faults: setup ## N=200 random faults against real browsers (SEED=… repeats a draw)
	@$(BIN)/python -m tests.system.faults --n $(N) $(if $(SEED),--seed $(SEED))

bystanders: setup ## N=200 sessions end and are swept among what is not theirs, as root (SEED=… repeats a draw)
	@$(BIN)/python -m tests.system.bystanders --n $(N) $(if $(SEED),--seed $(SEED))

host: setup ## SECONDS=300 of random kills among programs with one limit, and real browsers (SEED=… repeats a draw)
	@$(BIN)/python -m tests.system.host_trial --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

soak: setup ## N=200 tasks through one pool, faults among them (SEED=… repeats a draw)
	@$(BIN)/python -m tests.pool.soak --n $(N) $(if $(SEED),--seed $(SEED))

soak-server: setup ## N=200 leases of 4 clients of one server, K=1 for each browser, OVER=both, unix or tcp
	@$(BIN)/python -m tests.server.soak --n $(N) --leases-per-browser $(K) --over $(OVER) $(if $(SEED),--seed $(SEED))

bench: setup ## the figures, side by side in one run, into benchmarks/RESULTS.md
	@$(BIN)/python -m pip install -q --group bench
	@$(BIN)/python -m benchmarks

compat: setup ## tests marked compat on each Python that is here, with the floor and the newest of everything (nox)
	@PATH="$(CURDIR)/$(BIN):$$PATH" ./scripts/newer_python.sh 3.14 .tools/python3.14
	@$(BIN)/nox

docs: $(VENV)/.ready ## the documentation as a site in site/; fails for a broken link
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "site/index.html"

clean: ## remove what make made
	rm -rf $(VENV) .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis .lanes keeper-results .venv-bench .nox dist build site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup-demo: $(VENV)/.ready ## what `make demo` needs: Chromium and the virtual environment
	@./scripts/system.sh demo

setup: $(VENV)/.ready ## what `make test` needs: browsers, drivers, daemons (apt, cargo, Maven)
	@./scripts/system.sh test

$(VENV)/.ready: pyproject.toml scripts/venv.sh scripts/install.sh
	@PYTHON=$(PYTHON) ./scripts/venv.sh $(VENV)
	@touch $@
