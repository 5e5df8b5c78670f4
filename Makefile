# Everything below works in a fresh clone on a machine with Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo

# Recipes for a Slurm of one node and for a base image, where there is no cluster and no image hub;
# "-" for those of the machine.
SLURM_RECIPE ?= ../shared/recipes/slurm
CONTAINER_RECIPE ?= ../shared/recipes/container
# What the tests below make goes here.
SCRATCH ?= build

.PHONY: help install demo test test-oldest test-container test-slurm test-faults lint docs bench clean

help:
	@echo "make demo    simulate a small BIDS dataset, run participant level on it, say where the results are"
	@echo "make test    run the tests"
	@echo "make test-oldest     run them with the oldest versions of all dependencies"
	@echo "make test-container  build the image, run it, compare its tables with those of a bare run"
	@echo "make test-slurm      run participants on a real Slurm, with faults"
	@echo "make test-faults     kill, starve and damage runs, and compare what the next one makes (long)"
	@echo "make lint    ruff (code and format) and mypy (types)"
	@echo "make docs    build the documentation into docs/_build/html"
	@echo "make bench   measure accuracy, speed and memory (long)"
	@echo "make clean   remove what the other targets made"

# The stamp is newer than setup.cfg once everything is installed.
$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "qsmref needs Python 3.11 or newer; this is %d.%d: make PYTHON=python3.11 ..." % v[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test,docs]'
	touch $@

install: $(VENV)/installed

demo: install
	rm -rf $(DEMO)
	$(BIN)/qsmref-phantom dataset $(DEMO)/bids --matrix 96 112 88 --voxel-size 2 2 2 --seed 1
	$(BIN)/qsmref $(DEMO)/bids $(DEMO)/derivatives participant -d truth=$(DEMO)/bids/derivatives/truth \
	    --work-dir $(DEMO)/work --nprocs 2 --omp-nthreads 2
	@echo
	@echo "The map and the tables of the simulated participant:"
	@find $(DEMO)/derivatives/sub-01 -name '*_Chimap.*' | sort | sed 's/^/  /'
	@echo "The report: open $(DEMO)/derivatives/sub-01.html in a browser"

test: install
	$(BIN)/python -m pytest

# An environment of its own with what constraints/oldest.txt names.
OLDEST := .venv-oldest
test-oldest:
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --constraint constraints/oldest.txt --editable '.[test]'
	$(OLDEST)/bin/python -m pytest -m "not slow and not data"

test-container: install
	tests/container.sh $(CONTAINER_RECIPE) $(SCRATCH)/container $(BIN)

test-slurm: install
	tests/slurm.sh $(SLURM_RECIPE) $(SCRATCH)/slurm $(BIN)

test-faults: install
	rm -rf $(SCRATCH)/faults $(SCRATCH)/faults-parallel $(SCRATCH)/faults-disk*
	$(BIN)/python tests/faults.py $(SCRATCH)/faults --every 9
	$(BIN)/python tests/faults_parallel.py $(SCRATCH)/faults-parallel
	@if [ "$$(id -u)" != 0 ]; then echo "disks are not tried: only root may mount one"; else set -ex; \
		$(BIN)/python tests/faults_disk.py $(SCRATCH)/faults-disk; \
		$(BIN)/python tests/faults_disk.py $(SCRATCH)/faults-disk-workers --workers; fi

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

bench: install
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) $(OLDEST) $(DEMO) docs/_build .mypy_cache
