# make demo    ask the shipped model across media, encode and decode five small files, and write a page that shows it
# make test    run the tests
# make check   lint, formatting, types
#
# Needs Python 3.11 or later, with pip, and make. Everything else is installed into .venv, once.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test check clean

demo: .venv/installed
	$(BIN)/panglot demo -o demo

test: .venv/installed-dev
	$(BIN)/python -m pytest

check: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/python -m pytest tests/test_layers.py

clean:
	rm -rf .venv demo

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'panglot needs Python 3.11 or later; name one: make PYTHON=python3.12'; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install -q -c constraints.txt -e .
	touch $@

.venv/installed-dev: .venv/installed
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	touch $@
