# The verbs of this repository. Each sets up .venv by itself; nothing else is touched.

PYTHON ?= python3
BIN := .venv/bin
# most tests of whole programs wait for the time of a stream to pass
JOBS ?= $(shell expr $$(nproc) + 2)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PLUGINS := $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml))
PLUGIN_PACKAGES := $(PLUGINS:plugins/%=vqmon_%)

.PHONY: help demo demo-loop test test-slow check format bench dist clean

help:  ## list the verbs
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: .venv/run  ## watch a faulty live stream for a minute and write a report
	$(BIN)/vqmon demo

demo-loop: .venv/run  ## see an encoder being made better, and the proof; two minutes, ends with a report
	$(BIN)/vqmon demo --loop

test: .venv/dev  ## all tests not marked slow or gpu; skips are listed with their reasons
	$(BIN)/python -m pytest -m "not slow and not gpu" -n $(JOBS) --dist loadfile --no-loadscope-reorder

test-slow: .venv/dev  ## soak, wheel and other long tests
	$(BIN)/python -m pytest -m "slow and not gpu" --timeout 1200

check: .venv/dev  ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy vqmon tests
	$(BIN)/mypy $(PLUGIN_PACKAGES:%=-p %)
	$(BIN)/mypy trainer benchmarks

format: .venv/dev  ## rewrite the code in the house style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/dev  ## the figures that the README quotes, measured on this machine
	$(BIN)/python -m benchmarks

dist: .venv/dev  ## the sdist and the wheels of vqmon and its plugins into dist/
	$(BIN)/python -m build --no-isolation --outdir dist .
	for plugin in $(PLUGINS); do \
	  $(BIN)/python -m build --no-isolation --wheel --outdir dist $$plugin || exit 1; \
	done

clean:  ## remove the environment and everything built
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "vqmon needs Python 3.11 or newer as '$(PYTHON)'; try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is missing; install it first: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/run: .venv/bin/python pyproject.toml constraints.txt $(PLUGINS:%=%/pyproject.toml)
	$(PIP) -e '.[cpu]' $(PLUGINS:%=-e %)
	@touch $@

.venv/dev: .venv/bin/python pyproject.toml constraints.txt $(PLUGINS:%=%/pyproject.toml)
	$(PIP) -e '.[cpu,notify,postgres,train,dev]' $(PLUGINS:%=-e %)
	@touch $@ .venv/run
