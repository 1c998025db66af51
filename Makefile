# Two commands need nothing before them: `make tables` and `make test`. Each makes .venv and installs into it once.
SCALE ?= smoke
ARGS ?=
TABLES := table1,table2,table3_reference,table3_alpha,table3_tau,table4_none,table4_reference,table4_alpha,table4_tau,table5_draft,table5_lookup,table6
PYTHON := .venv/bin/python

tables: .venv/ready     ## every row of Tables 1-6, then the tables themselves; a second run finds everything cached
	$(PYTHON) -m soaes.run experiment=$(TABLES) scale=$(SCALE) $(ARGS)
	$(PYTHON) -m soaes.table scale=$(SCALE) $(ARGS)

test: .venv/ready-dev   ## the whole suite, below ten minutes on two cores
	.venv/bin/ruff check .
	.venv/bin/lint-imports --no-cache
	$(PYTHON) -m pytest -n 2 -m "not nightly"

test-nightly: .venv/ready-dev
	$(PYTHON) -m pytest -n 2

# torch first and alone: its plain PyPI build brings gigabytes of CUDA that a laptop does not need, so a CPU build is taken where the
# index has one; everything later is held to the torch that is there.
.venv/ready: setup.cfg pyproject.toml
	python3 -m venv .venv
	$(PYTHON) -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/ready-dev: .venv/ready
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

.PHONY: tables test test-nightly
