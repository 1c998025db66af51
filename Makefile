# Two commands need nothing before them: `make tables` and `make test`. Each makes .venv and installs into it once.
SCALE ?= smoke
ARGS ?=
PYTHON := .venv/bin/python

tables: .venv/ready     ## every row of Tables 1-6, then the tables themselves; a second run finds everything cached
	$(PYTHON) -m soaes.run 'experiment=table*' scale=$(SCALE) $(ARGS); ran=$$?; \
	$(PYTHON) -m soaes.table scale=$(SCALE) $(ARGS) && exit $$ran

publish: tables         ## the tables of this commit into experiments/SCALE, to be committed after it
	$(PYTHON) -m soaes.table scale=$(SCALE) --out experiments/$(SCALE) $(ARGS) > /dev/null

test: .venv/ready-dev   ## the whole suite, below ten minutes on two cores
	.venv/bin/ruff check .
	.venv/bin/lint-imports --no-cache
	$(PYTHON) -m pytest -n 2 -m "not nightly"

test-nightly: .venv/ready-dev  ## what is longer than that: the whole smoke run, with its floors and its time
	$(PYTHON) -m pytest -m nightly

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

.PHONY: tables publish test test-nightly
