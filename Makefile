# SPDX-License-Identifier: GPL-2.0-or-later
# From a fresh Debian machine: `make matrix` runs the default matrix, `make test` all tests. Both install first what is missing.
#   make setup     host packages (root or sudo) and .venv with `lab` and all extras
#   make matrix    setup, then `lab run matrix` (ARGS='--arch aarch64' and so on are passed on)
#   make test      setup, lint, then all tests (ARGS='-k mutant' is passed on to pytest)
#   make bench     setup, then speed, side by side with virtme-ng (ARGS='--json FILE')
#   make lint      setup, then every checker; make lint-NAME runs one
SHELL := /bin/bash
PYTHON ?= /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
LINTS := lint-ruff lint-format lint-mypy lint-codespell lint-shell lint-yaml lint-ansible

.PHONY: all setup matrix test bench lint $(LINTS) clean
all: setup

setup:
	@PYTHON='$(PYTHON)' scripts/setup

matrix: setup
	@$(BIN)/lab run matrix $(ARGS)

test: lint
	@$(BIN)/pytest -n auto --maxprocesses 4 --dist worksteal $(ARGS)

bench: setup
	@$(BIN)/python -m tests.bench $(ARGS)

lint: setup
	@failed=; for check in $(LINTS); do echo "lint: $${check#lint-}"; \
	  $(MAKE) -s --no-print-directory $$check || failed+=" $$check"; done; \
	if [ -n "$$failed" ]; then echo "lint: failed:$$failed" >&2; exit 1; fi

lint-ruff:
	@$(BIN)/ruff check --quiet .

lint-format:
	@$(BIN)/ruff format --quiet --check .

lint-mypy:
	@$(BIN)/mypy --no-error-summary

lint-codespell:
	@$(BIN)/codespell

lint-shell:
	@git grep --untracked -lzE '^#!/(usr/)?bin/(env )?(ba|da)?sh' | xargs -0r shellcheck

lint-yaml:
	@git ls-files -coz --exclude-standard '*.yml' '*.yaml' .yamllint | xargs -0r $(BIN)/yamllint --strict

lint-ansible:
	@cd ansible && PATH="$(CURDIR)/$(BIN):$$PATH" ansible-lint --offline -q

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis
