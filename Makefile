# Each target sets up what it needs; the first run installs for some minutes.
PYTHON ?= python3
# openmmlab (its own releases) or onedl (the maintained forks)
STACK ?= openmmlab
VENV ?= .venv$(if $(filter-out openmmlab,$(STACK)),-$(STACK))
JOBS ?= 2

# this clone's package, whichever clone VENV was set up for
export PYTHONPATH := $(CURDIR)
RUN = $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup demo test quick gpu docs clean

help:
	@echo 'make demo    compress a ViT on real digits, use it as a backbone'
	@echo 'make test    lint, check the format and run all tests'
	@echo 'make quick   the tests that take two minutes, no documents'
	@echo 'make gpu     measure on a card what only a card can show'
	@echo 'make docs    build the documentation in docs/_build'
	@echo 'make setup   only make the environment and install into it'
	@echo 'make clean   remove caches and build products'
	@echo
	@echo 'STACK=NAME   openmmlab, or onedl for its maintained forks (now: $(STACK))'
	@echo 'VENV=DIR     the environment to make or use (now: $(VENV))'
	@echo 'PYTHON=EXE   what to make it with (now: $(PYTHON))'
	@echo 'JOBS=N       processes that run the tests (now: $(JOBS))'

setup:
	@.ci/setup '$(PYTHON)' '$(VENV)' '$(STACK)'

demo: setup
	@$(RUN) tools/demo.py

# one thread per process: the processes share the cores
test: setup
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(JOBS) --dist loadfile

# all but what is marked slow or docs, with at least one test of every room
quick: setup
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(JOBS) --dist loadfile \
		-m 'not slow and not docs'

# ten minutes on one card; what it measures goes into docs/speed.md
gpu: setup
	@$(RUN) tools/gpu_report.py --out work_dirs/gpu_report

# a warning fails it
docs:
	@.ci/setup '$(PYTHON)' '$(VENV)' '$(STACK)' docs
	rm -rf docs/api
	$(RUN) -m sphinx.ext.apidoc -q --no-toc --templatedir docs/_templates \
		-o docs/api mmvitcompress mmvitcompress/compat
	$(RUN) -W ignore -m sphinx -q -W --keep-going -j $(JOBS) \
		-d docs/_build/doctrees docs docs/_build/html
	@echo 'open docs/_build/html/index.html'

clean:
	rm -rf build dist *.egg-info docs/_build docs/api
	rm -rf .pytest_cache .ruff_cache .hypothesis
	find configs mmvitcompress tests tools -name __pycache__ -type d \
		-prune -exec rm -rf {} +
