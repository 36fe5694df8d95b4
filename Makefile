# Two commands do everything on a fresh machine with Python 3.11+ and make:
#
#   make run      serve a mirror of Docker Hub on :5000, with the cache in ./cache-data
#   make test     run the tests
#
# ARGS is passed on: make test ARGS="-k freshness", make run ARGS="--config my.toml".
# The tests use all cores; make test ARGS="-n0 --pdb" keeps to one process.

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
UV ?= uv

# The first interpreter that is new enough and can make virtual environments; PYTHON=... chooses another.
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11
SUITABLE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for each in $(CANDIDATES); do \
	if $$each -c '$(SUITABLE)' 2>/dev/null; then echo $$each; break; fi; done)

PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes

.DEFAULT_GOAL := help
.PHONY: help run test lint types format bench profile economy kill-loop soak million faults lock clean

help:
	@sed -n 's/^#   //p' Makefile

run: $(VENV)/run.stamp
	@PULLTHROUGH_CACHE__DIRECTORY="$${PULLTHROUGH_CACHE__DIRECTORY:-$(CURDIR)/cache-data}" \
		exec $(BIN)/python -m proxy serve $(ARGS)

test: $(VENV)/test.stamp
	$(BIN)/python -m pytest --numprocesses auto --dist loadgroup $(ARGS)

lint: $(VENV)/test.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/test.stamp
	$(BIN)/mypy

format: $(VENV)/test.stamp
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Beside nginx and docker-registry, into bench/results.md. ARGS=--full takes longest and knows most; ARGS=--guard is what
# the tests do: it fails where a unit of work costs far more CPU than nginx's.
bench: $(VENV)/test.stamp
	$(BIN)/python -m bench $(ARGS)

# Where the time goes, into bench/profile.md: tables and a flame graph of the hot paths.
profile: $(VENV)/test.stamp
	$(BIN)/python -m bench.profile $(ARGS)

# A day of CI with and without caches: what it costs of the quota. Five minutes; ARGS=--short is what the tests do.
economy: $(VENV)/test.stamp
	$(BIN)/python -m economy $(ARGS)

# The long runs: hundreds of kills, a quarter of an hour of everything at once, a cache of a million entries.
# ARGS="--short" is what the tests do of them; ARGS="--directory /mnt/big" puts the cache there.
kill-loop soak million: $(VENV)/test.stamp
	$(BIN)/python -m endurance $@ $(ARGS)

# Writes docs/faults.md anew from what happens when things go wrong. Some of that needs root.
faults: $(VENV)/test.stamp
	PULLTHROUGH_WRITE_FAULTS=1 $(BIN)/python -m pytest tests/faults $(ARGS)

# Needs uv (https://docs.astral.sh/uv/); nothing else here does. Takes the newest versions that pyproject.toml allows.
COMPILE = $(UV) pip compile --quiet --upgrade --generate-hashes --universal --python-version 3.11 \
	--custom-compile-command "make lock" --no-emit-index-url pyproject.toml
lock:
	$(COMPILE) --output-file requirements.lock
	$(COMPILE) --constraints requirements.lock --extra test --extra bench --output-file requirements-dev.lock
	$(UV) pip compile --quiet --generate-hashes --universal --python-version 3.11 --constraints requirements-dev.lock \
		--custom-compile-command "make lock" --no-emit-index-url --group build --output-file requirements-build.lock

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

# A changed lock makes a new environment, so that nothing of the old one stays behind.
$(VENV)/run.stamp: requirements.lock
	@test -n "$(PYTHON)" || { \
		echo "Python 3.11 or newer, with venv, is needed: none of $(CANDIDATES) is. On Debian: apt install python3-venv." \
			"Another one is chosen with make PYTHON=/path/to/python" >&2; exit 1; }
	@echo "Setting up $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP_INSTALL) --only-binary :all: -r requirements.lock
	@touch $@

$(VENV)/test.stamp: $(VENV)/run.stamp requirements-dev.lock
	@echo "Adding what the tests need"
	@$(PIP_INSTALL) -r requirements-dev.lock
	@touch $@
