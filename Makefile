# wfpstream: every target sets up .venv by itself; Python 3.11+ (venv, pip) and make are all it takes.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.wfpstream-ready

# Leave empty to take the first Python 3.11+ found on the PATH.
PYTHON ?=
CANDIDATES := $(PYTHON) python3 python3.11 python3.12 python3.13 python3.14 python

# What `make test` hands to pytest: `make test PYTEST_ARGS="-x tests/fwps"` replaces it.
PYTEST_ARGS ?= -n auto --dist loadfile
# `make bench BENCH=engine ROUNDS=9`: which measurement, and how many rounds; empty: all, three.
BENCH ?=
# What the page of the docs is made from.
RECORD ?= --keep benchmarks/record
RECORDED := peers long engine birth match slow
MUTATE_ARGS ?=
RUNS ?= 500
FIRST ?= 1
JOBS ?= 1
ROUNDS ?= 10
# ROUNDS has a default of its own for `make flake`, so only one that was given counts for the benchmarks.
BENCH_ROUNDS := $(if $(filter command line environment,$(origin ROUNDS)),--rounds $(ROUNDS))

.PHONY: help venv demo test long churn torture mutate flake check format bench bench-long bench-record dist clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo    the self-contained demonstration'
	@echo 'make test    the tests (no root, no other program needed); PYTEST_ARGS=...'
	@echo 'make long    all tests, the long ones and the deep property profiles included'
	@echo 'make churn   1 GiB each way through the proxy while its rules change; CHURN_MIB=... CHURN_SEED=...'
	@echo 'make flake   the pytest plugin'"'"'s own tests many times, in random order; RUNS=500 ROUNDS=10 FIRST=1 JOBS=1'
	@echo 'make torture the full torture suite against our own proxy: minutes'
	@echo 'make mutate  changes fwps at random places and sees whether a test notices: an hour; MUTATE_ARGS=...'
	@echo 'make check   ruff check, ruff format --check, mypy'
	@echo 'make format  let ruff format and fix'
	@echo 'make bench   the benchmarks, beside other relays: 20 minutes; BENCH=engine ROUNDS=9 for one of them'
	@echo 'make bench-long  9,000 flows and ten million messages through the proxy: minutes'
	@echo 'make bench-record  both, as the figures of record, and the page of the docs from them'
	@echo 'make dist    a wheel in dist/'
	@echo 'make clean   remove what these targets made, except .venv'

venv: $(STAMP)

# A candidate counts only if it runs: version managers leave shims for versions they do not have.
$(STAMP): pyproject.toml
	@set -e; \
	if ! $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    found=; \
	    for python in $(CANDIDATES); do \
	        if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	        then found="$$python"; break; fi; \
	    done; \
	    if [ -z "$$found" ]; then \
	        echo 'wfpstream needs Python 3.11 or newer with venv and pip, and found none on the PATH.' >&2; \
	        echo 'Install it (Debian, Ubuntu: apt install python3-venv) or name one: make PYTHON=/path/to/python3.11' >&2; \
	        exit 1; \
	    fi; \
	    echo "setting up $(VENV) with $$found"; \
	    "$$found" -m venv --clear $(VENV); \
	fi
	@echo 'installing wfpstream and its tools into $(VENV)'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/wfpstream demo

test: $(STAMP)
	$(BIN)/python -m pytest -m 'not long' $(PYTEST_ARGS)

long: $(STAMP)
	WFPSTREAM_DEEP=1 $(BIN)/python -m pytest --timeout=3600 $(PYTEST_ARGS)

churn: $(STAMP)
	$(BIN)/python -m pytest -m long -s tests/transport/test_churn.py tests/system/test_churn.py

flake: $(STAMP)
	$(BIN)/python -m tests.flake --runs $(RUNS) --rounds $(ROUNDS) --first $(FIRST) --jobs $(JOBS)

torture: $(STAMP)
	$(BIN)/python -m pytest -m long -s tests/torture

mutate: $(STAMP)
	$(BIN)/python -m tests.mutation $(MUTATE_ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(STAMP)
	$(BIN)/python -m benchmarks $(BENCH) $(BENCH_ROUNDS)

bench-long: $(STAMP)
	$(BIN)/python -m benchmarks long

bench-record: $(STAMP)
	@$(BIN)/python -m benchmarks $(RECORD) $(BENCH_ROUNDS) $(RECORDED); status=$$?; \
	$(BIN)/python -m docs._generate && exit $$status

dist: $(STAMP)
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@ls dist

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	find wfpstream tests -type d -name __pycache__ -prune -exec rm -rf {} +
