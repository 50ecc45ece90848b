# Two commands on a fresh machine: `make train` and `make test`. The rest is for people who work on the code.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP     = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: train gallery test test-slow test-torch test-hosts test-gpu soak bench bench-peers docs lint wheel clean

train: $(VENV)/.recipes
	$(BIN)/python recipes/five_optimizers.py --logdir runs

# Every recipe, and docs/recipes.md with what came of it: two hours on two slow cores.
gallery: $(VENV)/.recipes
	$(BIN)/python recipes/gallery.py

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2

# What takes long: all operators and modules of torch's data bases through the autograd, trainings that are
# killed, kernels that several processes compile, curves in a browser.
test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 -m slow

# The core on another torch than the pinned one, in an environment of its own: make test-torch TORCH=2.15.0
test-torch:
	$(PYTHON) -m venv $(VENV)-torch-$(TORCH)
	$(VENV)-torch-$(TORCH)/bin/python -m pip install --quiet torch==$(TORCH) -e . hypothesis pytest pytest-xdist \
	    expecttest matplotlib tensorboard tyro sympy
	$(VENV)-torch-$(TORCH)/bin/python -m pytest -n 2 tests/test_*.py \
	    tests/engines tests/optimizers tests/validation tests/testing tests/lr_scheduler \
	    tests/distributed

# Inside of Lightning, Accelerate, Hugging Face's Trainer and Ignite, which this installs.
test-hosts: $(VENV)/.hosts
	$(BIN)/python -m pytest tests/hosts

# Where there is a GPU: the engines, the optimizers and the autograd on it, in a minute on sixteen cores.
GPU_TESTS = tests/gpu tests/engines/test_cuda.py tests/engines/test_cuda_storage.py \
    tests/optimizers/test_optim_db.py tests/optimizers/test_optim_db_states.py \
    tests/autograd/test_on_cuda.py tests/autograd/test_ways_on_cuda.py tests/autograd/test_two_devices.py \
    tests/autograd/test_kernels_on_cuda.py tests/autograd/test_attention_on_cuda.py
test-gpu: $(VENV)/.test
	$(BIN)/python -m pytest -n auto --dist load $(GPU_TESTS)

# Thousands of steps beside torch.optim while everything changes; runs killed, checkpoints corrupted: some
# fifteen minutes.
soak: $(VENV)/.test
	$(BIN)/python -m tests.optimizers.soak
	$(BIN)/python -m tests.recipes.soak

# The README's figures among it: in the training loop first.
bench: $(VENV)/.test
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.readme
	$(BIN)/python -m benchmarks.autograd
	$(BIN)/python -m benchmarks.gradient_checks

# AdamW beside other packages, which this installs, and what ways of storing cost; DeepSpeed's CPUAdam and
# torch.compile need g++. DeepSpeed comes without its dependencies, for those of the extra are all that CPUAdam needs.
bench-peers: $(VENV)/.peers
	DS_BUILD_OPS=0 $(PIP) --no-deps deepspeed
	$(BIN)/python -m benchmarks.peers
	$(BIN)/python -m benchmarks.storage
	$(BIN)/python -m benchmarks.readme

# The site, into docs/_build/html: every notebook is run, a warning is an error, nothing is fetched.
docs: $(VENV)/.docs
	rm -rf docs/_build docs/reference/generated
	$(BIN)/python -m sphinx -W --keep-going --quiet -j 2 -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

# Also what `pre-commit install` runs before each commit.
lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

wheel: $(VENV)/.dev
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# One stamp for each set of extras: installed again only when the requirements change.
$(VENV)/.%: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e '.[$*]'
	@touch $@

clean:
	rm -rf $(VENV) dist build docs/_build docs/reference/generated .pytest_cache .mypy_cache .ruff_cache .hypothesis
