# `make demo` and `make test` do all the set-up on a fresh machine: a virtual environment, then the work itself.
.DEFAULT_GOAL := help
.PHONY: help demo test test-all check fix lint types imports examples docs bench wheel system-packages clean
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
JOBS   ?= 2

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.installed: pyproject.toml
	@echo "installing into $(VENV), a minute or two (first time only)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(VENV)/.installed ## API nodes, the balancer, DNS and traffic on this machine; Ctrl-C removes all
	@test -e .venv-client/.installed || { echo "installing the official client (first time only)"; \
	  tools/official-client >/dev/null || echo "it cannot be installed here; the demo runs without it"; }
	@$(BIN)/arv-balance demo

test: $(VENV)/.installed ## all tests but the slow ones
	@$(BIN)/python -X dev -m pytest -q -n $(JOBS) --dist worksteal

test-all: $(VENV)/.installed ## slow ones too
	@$(BIN)/python -X dev -m pytest -q -n $(JOBS) --dist worksteal -m "" --hypothesis-profile=ci

check: $(VENV)/.installed ## lint, format, types, import contracts, generated files
	@$(MAKE) --no-print-directory -j$(JOBS) lint types imports examples

lint: $(VENV)/.installed
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(VENV)/.installed
	@$(BIN)/mypy

examples: $(VENV)/.installed
	@PYTHONPATH=. $(BIN)/python tools/engine_examples.py --check

imports: $(VENV)/.installed
	@$(BIN)/lint-imports --no-logo

fix: $(VENV)/.installed ## mend what ruff can mend
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

docs: $(VENV)/.installed ## write the generated references and examples/engines again
	@for tool in config_reference.py cli_reference.py generate-docs api-doc engine_examples.py; do PYTHONPATH=. $(BIN)/python tools/$$tool || exit 1; done

bench: $(VENV)/.installed ## CPU per request beside HAProxy, nginx, Envoy, Caddy and Traefik
	@$(BIN)/python -P -m bench

wheel: $(VENV)/.installed ## build, check its contents, smoke-run it from an empty environment
	@rm -rf dist && $(BIN)/python -m build -q && $(BIN)/check-wheel-contents dist/*.whl --toplevel apiserver,balancer,dnsupdate
	@sh tools/smoke-wheel

system-packages: ## what the tests and the benchmark take from Debian (root)
	@sh tools/system-packages

clean: ## remove what the targets made
	@rm -rf $(VENV) .venv-client .venv-client.lock dist .demo .mypy_cache .ruff_cache .pytest_cache
