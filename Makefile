# Every target sets up what it needs; nothing else is to be done before. `make` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
export HOMEOSTAT_MAKE_GOAL := $(firstword $(MAKECMDGOALS))

# Arguments passed on: make demo ARGS="--months 11", make test ARGS="-k join tests/unit"
ARGS ?=

# Other makefiles may add targets, with "##" comments that show in the help.
-include benchmarks/*.mk

.PHONY: help
help: ## this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## the environment for development and tests, in .venv
	@$(PYTHON) tools/set_up.py dev

.PHONY: setup-run
setup-run: ## the environment for running, in .venv
	@$(PYTHON) tools/set_up.py run

.PHONY: demo
demo: setup-run ## the loop on a year of flights; ARGS="--months 11 --json FILE"
	@$(BIN)/homeostat demo flights $(ARGS)

.PHONY: up
up: setup-run ## broker, PostgreSQL and every service, on loopback
	@$(BIN)/homeostat up $(ARGS)

.PHONY: down
down: setup-run ## stops what `make up` started
	@$(BIN)/homeostat down $(ARGS)

.PHONY: test
test: setup ## all tests, with a real Apache Kafka where its jars can be had; ARGS for pytest
	@$(BIN)/python tools/run_tests.py $(ARGS)

.PHONY: kafka
kafka: setup ## the jars of a real Apache Kafka for the tests, into .kafka (Java 17, Maven)
	@$(BIN)/python tools/fetch_kafka.py

.PHONY: check
check: setup ## format, lint, types, imports, contracts, repository
	@$(BIN)/python tools/check.py $(ARGS)

.PHONY: format
format: setup ## puts the code and the contracts into their format
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format --quiet .
	@$(BIN)/buf format proto --write

.PHONY: proto
proto: setup ## the generated code of sdk/homeostat from proto/
	@$(BIN)/buf lint proto
	@$(BIN)/python tools/generate_contracts.py

.PHONY: reference
reference: setup ## the reference pages that follow from code
	@$(BIN)/python tools/render_reference.py

.PHONY: proto-baseline
proto-baseline: setup ## accepts the contracts as they stand: what buf breaking compares with
	@$(BIN)/buf build proto --exclude-source-info -o proto/baseline.binpb

.PHONY: lock
lock: setup ## pins all requirements anew, with hashes and without addresses (UPGRADE=1: newest)
	@$(BIN)/python tools/lock_requirements.py $(if $(UPGRADE),--upgrade)

.PHONY: clean
clean: ## removes what was made here, except the data in .homeostat
	@rm -rf .venv .venv-kserve .kafka .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
