# One command for each thing that people do here; `make help` lists them.
# Needs Python 3.11 or newer with pip, and make. No compiler, no server, no other tool.
#
#   ARGS    is passed on to the command:  make demo ARGS="--symbols 50"
#   SEEDS   how many, for chaos
#   PYTHON  the Python to build on, when python3 is too old:  make test PYTHON=python3.12
#   VENV    the environment's folder; .venv here, or in your cache when this folder is read-only

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo up down bench chaos soak test check lint types arrows architecture fmt lock clean

ifeq ($(shell [ -w . ] && echo yes),yes)
VENV ?= .venv
else
# A clone that may only be read: all that is written goes to the user's cache.
AWAY := $(shell echo "$${XDG_CACHE_HOME:-$$HOME/.cache}/gapless/$$(pwd | cksum | cut -d ' ' -f 1)")
VENV ?= $(AWAY)/venv
GAPLESS_HOME ?= $(AWAY)/home
IMPORTS_CACHE := --cache-dir "$(AWAY)/import-linter"
export GAPLESS_HOME
export HYPOTHESIS_STORAGE_DIRECTORY := $(AWAY)/hypothesis
export PYTEST_ADDOPTS := $(PYTEST_ADDOPTS) -o cache_dir=$(AWAY)/pytest
export PYTHONDONTWRITEBYTECODE := 1
export RUFF_CACHE_DIR := $(AWAY)/ruff
endif
BIN := $(VENV)/bin
PY := $(BIN)/python
STAMP := $(VENV)/.gapless-installed
MOVED := $(shell [ -x "$(PY)" ] && [ "$$(cat "$(STAMP)" 2>/dev/null)" = "$(CURDIR)" ] || echo FORCE)

# Flat package names are easily shadowed: our own folder comes first, whatever PYTHONPATH was.
export PYTHONPATH := $(CURDIR)
ifneq ($(shell [ -w "$${XDG_CACHE_HOME:-$$HOME}" ] && echo yes),yes)
export PIP_NO_CACHE_DIR := 1
endif
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export PIP_ROOT_USER_ACTION := ignore
# An operator's pip settings may not lead the packages out of the environment.
export PIP_USER := 0
export PIP_REQUIRE_VIRTUALENV := 0
unexport PIP_TARGET PIP_PREFIX PYTHONHOME

# Ctrl-C is a way to end these, not an error of make's.
STOPPED := || [ $$? -eq 130 ]

help: ## List these commands
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F '|' '{ printf "%-14s %s\n", $$1, $$2 }'

demo: $(STAMP) ## Replay a market day with faults on this machine and verify the result
	@"$(PY)" -m ops demo $(ARGS) $(STOPPED)

up: $(STAMP) ## Collect: servers, migrations and every process on this machine
	@"$(PY)" -m ops up $(ARGS) $(STOPPED)

down: $(STAMP) ## End what runs here; ARGS="--forget --yes" deletes what was collected as well
	@"$(PY)" -m ops down $(ARGS)

bench: $(STAMP) ## Measure against limits and peers: make bench ARGS="storage --quick"
	@"$(PY)" -m bench $(ARGS)

SEEDS ?= 3

chaos: $(STAMP) ## Kill and break everything by seed, judge what is left: make chaos SEEDS=20 ARGS="--lanes 2"
	@"$(PY)" -m chaos --seeds $(SEEDS) $(ARGS)

soak: $(STAMP) ## An hour at 8x in which nothing may grow: make soak ARGS="--minutes 5"
	@"$(PY)" -m chaos.soak $(ARGS)

test: $(STAMP) ## Run the tests; warnings are errors
	@"$(PY)" -m pytest -n auto --dist loadfile $(ARGS)

check: lint types arrows architecture ## Lint, format, types, import arrows and architecture

lint: $(STAMP)
	"$(PY)" -m ruff check .
	"$(PY)" -m ruff format --check .

types: $(STAMP)
	"$(PY)" -m basedpyright --pythonpath "$(PY)"

arrows: $(STAMP)
	"$(BIN)/lint-imports" --no-logo $(IMPORTS_CACHE)

architecture: $(STAMP)
	"$(PY)" -m pytest -q tests/architecture

fmt: $(STAMP) ## Mend what can be mended by machine
	"$(PY)" -m ruff check --fix .
	"$(PY)" -m ruff format .

LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock" pyproject.toml

lock: $(STAMP) ## Pin what pyproject.toml asks for; ARGS=--upgrade takes the newest
	"$(BIN)"/$(LOCK) --all-extras $(ARGS) --output-file requirements.lock
	"$(BIN)"/$(LOCK) --extra sim --constraints requirements.lock --output-file deploy/requirements.lock

DATA := $(or $(GAPLESS_HOME),.gapless)

clean: ## Remove the environment and every cache; collected data stays
	rm -rf "$(VENV)" build dist .hypothesis .import_linter_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@if [ -d "$(DATA)" ]; then \
		echo "what was collected stays in $(DATA); make down ARGS=\"--forget --yes\" deletes it"; \
		for elsewhere in $(wildcard $(DATA)/servers.path $(DATA)/*/servers.path); do \
			echo "and, since root started it, in $$(cat "$$elsewhere")"; \
		done; \
	fi

# The stamp holds the folder it was made for: scripts and the editable install name it, so a
# moved or copied clone starts afresh. Debian splits ensurepip off; there the pip of the Python
# that was found fills the environment.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))

$(STAMP): pyproject.toml requirements.lock $(MOVED)
	@set -e; \
	python=; \
	for candidate in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
		if "$$candidate" -c '$(NEW_ENOUGH)' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "gapless needs Python 3.11 or newer; $(or $(PYTHON),python3) -V says:" \
			"$$("$(or $(PYTHON),python3)" -V 2>&1). Install one, or name it: make PYTHON=/path/to/python3.12" >&2; \
		exit 1; \
	fi; \
	echo "gapless: setting up $(VENV) (once, about a minute)" >&2; \
	clear=; if [ -s "$@" ] && [ "$$(cat "$@")" != "$(CURDIR)" ]; then clear=--clear; fi; \
	pip="$(PY) -m pip"; \
	if [ -n "$$clear" ] || ! "$(PY)" -m pip --version >/dev/null 2>&1; then \
		if said=$$(mkdir -p "$(VENV)" 2>&1 && "$$python" -m venv $$clear "$(VENV)" 2>&1); then :; \
		elif "$$python" -m venv --clear --without-pip "$(VENV)" >/dev/null 2>&1 \
			&& "$$python" -m pip --python "$(PY)" --version >/dev/null 2>&1; then \
			pip="$$python -m pip --python $(PY)"; \
		else \
			echo "$$said" >&2; \
			echo "gapless: $$python cannot make a virtual environment in $(VENV). Install its venv module" \
				"(Debian, Ubuntu: apt install python3-venv) or choose another folder: make VENV=/folder/of/yours" >&2; \
			exit 1; \
		fi; \
	fi; \
	rm -f "$@"; \
	$$pip install --quiet --require-hashes --only-binary :all: --requirement requirements.lock; \
	$$pip install --quiet --no-build-isolation --no-deps --editable .; \
	printf '%s\n' "$(CURDIR)" > "$@"

.PHONY: FORCE
FORCE:
