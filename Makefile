# Two commands matter:  make train   and   make test
#
# Both make .venv first, if it is not there, and install what they need into it. Nothing else on
# the machine is touched. Needed beforehand: python3 (3.11 or later), python3-venv, make.
#
#   make train                        the CNN on MNIST (or scikit-learn's digits), on the best device
#   make train MODEL=mlp DEVICE=opencl ARGS="--epochs 3"
#   make train-gpt                    a small GPT on Python's own library; ARGS="--text shakespeare", "--text FILE"
#   make test                         the whole suite on every device that works here
#   make test DEVICE=cpu ARGS="-k matmul -x"

PYTHON ?= python3
VENV ?= .venv
MODEL ?= cnn
DATA ?= auto
DEVICE ?= auto
ARGS ?=
MINUTES ?= 30
# Test processes: one per core, eight at most; NumPy's BLAS then gets one thread in each.
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ $$n -gt 8 ] && n=8; echo $$n)

BIN := $(VENV)/bin
MINIMUM := build/minimum
CUDA_ONLY := gpugrad/backends/cuda.py,gpugrad/cuda/*
# A --user, --target or --prefix set for the user at large would defeat the virtual environment.
PIP := env -u PIP_TARGET -u PIP_PREFIX -u PIP_ROOT -u PYTHONHOME -u PYTHONPATH PIP_USER=0 \
	PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet

# With an NVIDIA driver also CuPy, for the CUDA version that the driver says it can run.
CUDA := $(shell nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: *\([0-9]*\).*/\1/p' | head -n 1)
ifneq ($(CUDA),)
CUDA_EXTRA := $(shell [ $(CUDA) -ge 13 ] && echo ,cuda13 || echo ,cuda12)
endif

# Put there by `make opencl-intel`, this folder names an OpenCL driver besides the system's.
ifneq ($(wildcard $(VENV)/opencl-vendors/*.icd),)
export OCL_ICD_VENDORS := $(abspath $(VENV))/opencl-vendors
endif

.DELETE_ON_ERROR:
.PHONY: help train train-gpt test fuzz test-min coverage mutants bench install install-dev lint format types wheel-check kernels-check oclgrind opencl-intel clean

help:
	@sed -n 's/^#  *\(make .*\)/  \1/p' Makefile
	@echo "  make lint, types, format          ruff and the layer contracts; mypy; ruff format"
	@echo "  make test-min                     the suite with the oldest supported versions (tools/minimum_versions.txt)"
	@echo "  make coverage                     the suite, and which lines of the package it runs (CUDA's counted apart)"
	@echo "  make mutants                      does a test notice when the ops table or the autograd walk is broken?"
	@echo "  make fuzz MINUTES=30              random programs, compared between devices and with PyTorch"
	@echo "  make bench                        microbenchmarks of single calls and kernels"
	@echo "  make wheel-check                  build the wheel, install it elsewhere, train from it"
	@echo "  make kernels-check                compile every kernel the suite uses for CUDA (no GPU needed)"
	@echo "  make oclgrind                     run every kernel under a memory and race checker (Debian: oclgrind)"
	@echo "  make opencl-intel                 Intel's OpenCL driver, for processors the PoCL wheel does not know"
	@echo "  make clean                        remove .venv, runs and caches"

train: $(VENV)/.train
	$(BIN)/python examples/train_mnist.py --model $(MODEL) --data $(DATA) --device $(DEVICE) $(ARGS)

train-gpt: $(VENV)/.train
	$(BIN)/python examples/train_gpt.py --device $(DEVICE) $(ARGS)

test: $(VENV)/.test
	@$(BIN)/python -m gpugrad devices --brief
	OPENBLAS_NUM_THREADS=$${OPENBLAS_NUM_THREADS:-1} $(BIN)/python -m pytest -n $(JOBS) --device $(if $(filter auto,$(DEVICE)),all,$(DEVICE)) $(ARGS)

test-min: $(MINIMUM)/.done
	$(MINIMUM)/bin/python -m gpugrad devices --brief
	OPENBLAS_NUM_THREADS=$${OPENBLAS_NUM_THREADS:-1} $(MINIMUM)/bin/python -m pytest -n $(JOBS) --device $(if $(filter auto,$(DEVICE)),all,$(DEVICE)) $(ARGS)

# Data files of the test processes, and of those that they start, go into one folder and are combined there.
coverage: export COVERAGE_FILE := $(abspath build/coverage/data)
coverage: $(VENV)/.test
	@$(PIP) "pytest-cov>=7" "coverage>=7.10"
	rm -rf build/coverage
	mkdir -p build/coverage
	OPENBLAS_NUM_THREADS=$${OPENBLAS_NUM_THREADS:-1} $(BIN)/python -m pytest -n $(JOBS) --device $(if $(filter auto,$(DEVICE)),all,$(DEVICE)) --cov=gpugrad --cov-report= $(ARGS)
	@echo "lines that only run with a CUDA device:"
	-$(BIN)/python -m coverage report --include="$(CUDA_ONLY)"
	@echo "all others:"
	$(BIN)/python -m coverage report --omit="$(CUDA_ONLY)" --skip-covered --show-missing --fail-under=95

mutants: $(VENV)/.test
	$(BIN)/python tools/mutants.py --jobs $(JOBS) $(ARGS)

fuzz: $(VENV)/.test
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --minutes $(MINUTES) --device $(if $(filter auto,$(DEVICE)),pretend,$(DEVICE)) $(ARGS)

bench: $(VENV)/.bench
	$(BIN)/python -m pytest benchmarks/micro -o python_files="bench_*.py" -o python_functions="bench_*" --device $(if $(filter auto,$(DEVICE)),all,$(DEVICE)) $(ARGS)

install: $(VENV)/.test

install-dev: $(VENV)/.dev

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.dev
	$(BIN)/mypy

wheel-check: $(VENV)/.dev
	$(BIN)/python tools/check_wheel.py

kernels-check: $(VENV)/.dev $(VENV)/.test
	rm -f build/kernels.jsonl
	mkdir -p build
	GPUGRAD_RECORD_KERNELS=$(abspath build/kernels.jsonl) $(MAKE) test
	$(BIN)/python tools/compile_cuda.py build/kernels.jsonl

# Tests that launch all kernels of kernels/, and the kinds that gpugrad.compile makes, with the launch shapes for CPUs and
# once more with those for GPUs (some do both by themselves). Two small launches of each kernel are kept, which oclgrind
# then repeats. SHAPES=gpu: only the second run, where build/launches/cpu is there already, as in .ci/run. Repeating all
# takes two cores about 45 minutes, and OCLGRIND="--seconds 600" nearly all of them, the cheap ones first.
LAUNCHING := $(addprefix tests/test_,ops.py fused.py nn.py optim.py updates.py indexing.py random.py attention.py \
	compile_ops.py)
BOTH_SHAPES := $(addprefix tests/test_,kernel_rows.py kernel_convolve.py kernel_product.py device_backends.py \
	compile_launches.py)
SHAPES ?= cpu gpu
OCLGRIND ?=

oclgrind: $(VENV)/.test
	@command -v oclgrind >/dev/null || { \
		echo "oclgrind is not installed; on Debian or Ubuntu: sudo apt-get install oclgrind" >&2; exit 1; }
	for shapes in $(SHAPES); do \
		rm -rf build/launches/$$shapes; \
		tests="$(LAUNCHING)"; [ $$shapes = gpu ] || tests="$$tests $(BOTH_SHAPES)"; \
		OPENBLAS_NUM_THREADS=1 GPUGRAD_TEST_SHAPES=$$shapes GPUGRAD_TEST_LAUNCHES=$(abspath build/launches)/$$shapes \
			$(BIN)/python -m pytest -q -n $(JOBS) --device opencl $$tests || exit 1; \
	done
	$(BIN)/python tools/check_oclgrind.py build/launches --jobs $(JOBS) $(OCLGRIND)

opencl-intel: $(VENV)/.train
	$(PIP) --editable ".[opencl-intel]"
	mkdir -p $(VENV)/opencl-vendors
	cp /etc/OpenCL/vendors/*.icd $(VENV)/opencl-vendors/ 2>/dev/null || true
	echo "$(abspath $(VENV))/lib/libintelocl.so" > $(VENV)/opencl-vendors/intel.icd
	OCL_ICD_VENDORS=$(abspath $(VENV))/opencl-vendors $(BIN)/python -m gpugrad devices

clean:
	rm -rf $(VENV) build dist runs .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Pinned versions, apart from the others. A part of the tests needs fewer extras: MINIMUM_EXTRAS=opencl,test
MINIMUM_EXTRAS ?= opencl,examples,test
$(MINIMUM)/.done: tools/minimum_versions.txt pyproject.toml
	$(PYTHON) -m venv $(MINIMUM)
	$(subst $(BIN),$(MINIMUM)/bin,$(PIP)) --constraint tools/minimum_versions.txt --editable ".[$(MINIMUM_EXTRAS)]"
	@touch $@

# A stamp per set of extras: made again only when pyproject.toml changed since.
$(VENV)/.train: EXTRAS := opencl,examples$(CUDA_EXTRA)
$(VENV)/.test: EXTRAS := opencl,examples,test$(CUDA_EXTRA)
$(VENV)/.dev: EXTRAS := dev
$(VENV)/.bench: EXTRAS := opencl,test,bench$(CUDA_EXTRA)
$(VENV)/.train $(VENV)/.test $(VENV)/.dev $(VENV)/.bench: $(BIN)/python pyproject.toml
	@echo "installing gpugrad[$(EXTRAS)] into $(VENV)"
	@$(PIP) --editable ".[$(EXTRAS)]"
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "gpugrad needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12" >&2; \
		exit 1; }
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "the virtual environment could not be made; on Debian or Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }
