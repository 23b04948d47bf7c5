# Each target sets up what it needs in .venv, once, and again when pyproject.toml changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
OPENCODE := tests/e2e/opencode
CAST := build/opencode.cast
WORKERS ?= 2

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint bench recording clean

help: ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

demo: $(VENV)/.runtime ## a provider that really fails, and what becomes of the turns (npm used if there)
	@$(BIN)/python -m fallback_plugin demo --npm $(OPENCODE)

test: $(VENV)/.test ## every test, those on the real OpenCode included (needs npm)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

lint: $(VENV)/.lint ## ruff, pyright strict on the package, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

bench: $(VENV)/.test ## the measured limits
	@set -e; for file in tests/bench/*.py; do echo "== $$file"; $(BIN)/python "$$file"; done

recording: $(VENV)/.test ## the picture that README shows, from the test that it is of (needs npm)
	mkdir -p $(dir $(CAST))
	FALLBACK_PLUGIN_RECORDING=$(abspath $(CAST)) $(BIN)/python -m pytest tests/e2e/test_terminal.py -k fallback
	$(BIN)/python -m fallback_plugin.testing.recording_svg $(CAST) examples/opencode/recording.svg

clean: ## remove what make has made
	rm -rf $(VENV) $(OPENCODE)/node_modules $(OPENCODE)/.cache build dist *.egg-info
	rm -rf .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

$(VENV)/.runtime: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 …"; exit 1; }
	@echo "Setting up $(VENV) …"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --editable .
	@touch $@

# pip knows --group since 25.1.
$(VENV)/.pip: $(VENV)/.runtime
	@$(PIP) --upgrade "pip>=25.1"
	@touch $@

$(VENV)/.test: $(VENV)/.pip
	@$(PIP) --group test
	@touch $@

# pyright reads imports of the test group too.
$(VENV)/.lint: $(VENV)/.test
	@$(PIP) --group lint
	@touch $@
