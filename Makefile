# Two commands matter:  make train   and   make test
#
# Both make .venv first, if it is not there, and install what they need into it. Nothing else on
# the machine is touched. Needed beforehand: python3 (3.11 or later), python3-venv, make.
#
#   make train                        the CNN on MNIST (or scikit-learn's digits), on the best device
#   make train MODEL=mlp DEVICE=opencl ARGS="--epochs 3"
#   make test                         the whole suite on every device that works here
#   make test DEVICE=cpu ARGS="-k matmul -x"

PYTHON ?= python3
VENV ?= .venv
MODEL ?= cnn
DATA ?= auto
DEVICE ?= auto
ARGS ?=
# Test processes: one per core, eight at most; NumPy's BLAS then gets one thread in each.
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ $$n -gt 8 ] && n=8; echo $$n)

BIN := $(VENV)/bin
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
.PHONY: help train test bench install install-dev lint format types wheel-check kernels-check opencl-intel clean

help:
	@sed -n 's/^#  *\(make .*\)/  \1/p' Makefile
	@echo "  make lint, types, format          ruff and the layer contracts; mypy; ruff format"
	@echo "  make bench                        microbenchmarks of single calls and kernels"
	@echo "  make wheel-check                  build the wheel, install it elsewhere, train from it"
	@echo "  make kernels-check                compile every kernel the suite uses for CUDA (no GPU needed)"
	@echo "  make opencl-intel                 Intel's OpenCL driver, for processors the PoCL wheel does not know"
	@echo "  make clean                        remove .venv, runs and caches"

train: $(VENV)/.train
	$(BIN)/python examples/train_mnist.py --model $(MODEL) --data $(DATA) --device $(DEVICE) $(ARGS)

test: $(VENV)/.test
	@$(BIN)/python -m gpugrad devices --brief
	OPENBLAS_NUM_THREADS=$${OPENBLAS_NUM_THREADS:-1} $(BIN)/python -m pytest -n $(JOBS) --device $(if $(filter auto,$(DEVICE)),all,$(DEVICE)) $(ARGS)

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

opencl-intel: $(VENV)/.train
	$(PIP) --editable ".[opencl-intel]"
	mkdir -p $(VENV)/opencl-vendors
	cp /etc/OpenCL/vendors/*.icd $(VENV)/opencl-vendors/ 2>/dev/null || true
	echo "$(abspath $(VENV))/lib/libintelocl.so" > $(VENV)/opencl-vendors/intel.icd
	OCL_ICD_VENDORS=$(abspath $(VENV))/opencl-vendors $(BIN)/python -m gpugrad devices

clean:
	rm -rf $(VENV) build dist runs .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

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
