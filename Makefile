# Every target does its own set-up: on a fresh machine with Python 3.11 or newer `make demo` and `make test` just run.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PEERS = $(VENV)/peers
WORKERS ?= 4

help:  ## what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 8

demo:  ## the main job, shown: standard library only, under 20 s
	$(PYTHON) -m netmsg demo

$(VENV)/.test: setup.cfg
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@

# The real aiomsg, of either dialect, each in an environment of its own, for they share a name. Where the index cannot be
# reached their tests are skipped, and say so.
AIOMSG = $(PEERS)/aiomsg-2026.7.1 $(PEERS)/aiomsg-2019.12.1

$(PEERS)/aiomsg-%: | $(VENV)/.test
	mkdir -p $(PEERS)
	rm -rf $@ $@.tmp
	$(PYTHON) -m venv $@.tmp
	if $@.tmp/bin/python -m pip install --quiet --disable-pip-version-check aiomsg==$*; \
	then mv $@.tmp $@; else rm -rf $@.tmp; echo "aiomsg could not be installed: its tests will be skipped"; fi

test: $(VENV)/.test $(AIOMSG)  ## all tests
	NETMSG_PEERS=$(PEERS) $(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

locked: $(VENV)/.test $(AIOMSG)  ## all tests, as on an interpreter without the global lock
	NETMSG_NO_GIL=1 NETMSG_PEERS=$(PEERS) $(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

$(VENV)/.lint: setup.cfg
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[lint]'
	touch $@

CODE = netmsg tests examples benchmarks

lint: $(VENV)/.lint  ## flake8, and whether all is formatted
	$(BIN)/python -m flake8 $(CODE)
	$(BIN)/python -m isort --check-only --diff $(CODE)
	$(BIN)/python -m autopep8 --recursive --diff --exit-code $(CODE)

format: $(VENV)/.lint  ## sorted imports, and what a formatter can mend
	$(BIN)/python -m isort $(CODE)
	$(BIN)/python -m autopep8 --recursive --in-place $(CODE)

types: $(VENV)/.test  ## mypy, strict, on the tests, examples and benchmarks too
	$(BIN)/python -m mypy

SEEDS ?= 1000
FROM ?= 0

simulate: $(VENV)/.test  ## SEEDS simulated worlds, from FROM on: whole Søckets, virtual time, everything that goes wrong
	cd tests && $(abspath $(BIN))/python -m simulation $(SEEDS) $(FROM)

# Left out is what strikes at every line, storms, loads the machine, or is a world: a tracer makes it slow, or meaningless.
UNTRACED = --ignore tests/failure --ignore tests/simulation -m "not untraced"

cover: $(VENV)/.test $(AIOMSG)  ## what the tests reach of the code: no less than the floor in setup.cfg
	$(BIN)/python -m coverage erase
	NETMSG_PEERS=$(PEERS) $(BIN)/python -m coverage run -m pytest -n $(WORKERS) --timeout 180 $(UNTRACED) $(ARGS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

docs: $(VENV)/.test  ## the documentation, as HTML in docs/_build
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build

bench: $(VENV)/.test  ## measured against the peers, in one run; results in benchmarks/results
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/python -m benchmarks $(ARGS)

soak: $(VENV)/.test  ## the failure scenarios at length, and a million inputs for the parsers
	NETMSG_SOAK=1 NETMSG_REPORT=docs/explanation/soak.md $(BIN)/python -m pytest -n $(WORKERS) --timeout 900 \
		tests/failure tests/simulation/test_worlds.py tests/fuzzing $(ARGS)

dist: $(VENV)/.test  ## wheel and source distribution
	$(BIN)/python -m pip install --quiet --disable-pip-version-check build
	$(BIN)/python -m build

.PHONY: help demo test locked lint format types cover docs bench soak dist
