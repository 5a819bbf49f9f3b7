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

coverage: $(VENV)/.test
	@$(PIP) "pytest-cov>=5"
	OPENBLAS_NUM_THREADS=$${OPENBLAS_NUM_THREADS:-1} $(BIN)/python -m pytest -n $(JOBS) --device $(if $(filter auto,$(DEVICE)),all,$(DEVICE)) --cov=gpugrad --cov-report= $(ARGS)
	@echo "lines that only run with a CUDA device:"
	-$(BIN)/python -m coverage report --include="$(CUDA_ONLY)"
	@echo "all others:"
	$(BIN)/python -m coverage report --omit="$(CUDA_ONLY)" --skip-covered --show-missing --fail-under=95

mutants: $(VENV)/.test
	$(BIN)/python tools/mutants.py $(ARGS)

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

# What launches all kernels of kernels/ (those that gpugrad.compile generates are not among them): with the launch shapes for CPUs, then with those for GPUs.
LAUNCHING := $(addprefix tests/,test_ops.py test_fused.py test_nn.py test_optim.py test_updates.py test_indexing.py \
	test_random.py test_attention.py test_kernel_rows.py test_kernel_convolve.py test_kernel_product.py \
	test_device_backends.py)

oclgrind: $(VENV)/.test
	rm -rf build/launches
	for shapes in default gpu; do \
		OPENBLAS_NUM_THREADS=1 GPUGRAD_TEST_SHAPES=$$shapes GPUGRAD_TEST_LAUNCHES=$(abspath build/launches) \
			$(BIN)/python -m pytest -q -n $(JOBS) --device opencl $(LAUNCHING) || exit 1; \
	done
	$(BIN)/python tools/check_oclgrind.py build/launches --jobs $(JOBS)

opencl-intel: $(VENV)/.train
	$(PIP) --editable ".[opencl-intel]"
	mkdir -p $(VENV)/opencl-vendors
	cp /etc/OpenCL/vendors/*.icd $(VENV)/opencl-vendors/ 2>/dev/null || true
	echo "$(abspath $(VENV))/lib/libintelocl.so" > $(VENV)/opencl-vendors/intel.icd
	OCL_ICD_VENDORS=$(abspath $(VENV))/opencl-vendors $(BIN)/python -m gpugrad devices

clean:
	rm -rf $(VENV) build dist runs .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Pinned versions, apart from the others.
$(MINIMUM)/.done: tools/minimum_versions.txt
	$(PYTHON) -m venv $(MINIMUM)
	$(subst $(BIN),$(MINIMUM)/bin,$(PIP)) -r tools/minimum_versions.txt
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
