# make demo    see Rundiff at work on a real table
# make test    run the whole test suite
# make bench   measure Rundiff beside its peers, some minutes (docs/benchmarks.md)
# make check   ruff, mypy, the order of imports, and the documentation's own code
#
# Needs Python 3.11 or newer and nothing else; everything is installed into .venv. The native core is
# built along where a recent cargo is on the PATH, and does without it elsewhere.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
BUILT_FROM := pyproject.toml setup.py $(wildcard native/Cargo.* native/src/*.rs)

.PHONY: demo test bench check clean

demo: $(VENV)/.package
	@demo/run "$(abspath $(BIN))"

test: $(VENV)/.development
	$(BIN)/python -m pytest -n $(WORKERS)

bench: $(VENV)/.development
	$(BIN)/python -m pip --disable-pip-version-check --quiet install --group bench
	$(BIN)/python -m benchmarks

check: $(VENV)/.development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/docs

clean:
	rm -rf $(VENV) build demo/work native/target src/rundiff.egg-info
	rm -f src/rundiff/_native*.so

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Rundiff needs Python 3.11 or newer: make PYTHON=python3.12 …" >&2; exit 1; }
	@echo "Making a virtual environment in $(VENV) …"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "python3 -m venv does not work here; on Debian: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.package: $(BIN)/python $(BUILT_FROM)
	@echo "Installing Rundiff into $(VENV) …"
	@$(PIP) install --editable .
	@$(BIN)/rundiff doctor | sed -n 's/^signer *[a-z]* */Signer: /p'
	@touch $@

# Dependency groups (PEP 735) need a pip of 2025 or later.
$(VENV)/.development: $(VENV)/.package
	@echo "Installing what the tests need …"
	@$(PIP) install --upgrade "pip>=25.1"
	@$(PIP) install --group dev
	@touch $@
