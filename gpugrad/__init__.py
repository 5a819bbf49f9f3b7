"""gpugrad: tensors and autograd on the GPU you have. One Tensor; NumPy, CUDA and OpenCL behind it."""

from __future__ import annotations

import importlib
from typing import Any

from gpugrad import autograd, dtypes, namespace, ops
from gpugrad.autograd import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled
from gpugrad.devices import (
    Device,
    auto_device,
    get_default_device,
    is_available,
    memory_stats,
    register_backend,
    reset_peak_memory_stats,
    set_default_device,
    synchronize,
)
from gpugrad.dtypes import DType as dtype
from gpugrad.dtypes import (
    bfloat16,
    double,
    finfo,
    float16,
    float32,
    float64,
    get_default_dtype,
    half,
    iinfo,
    int8,
    int16,
    int32,
    int64,
    long,
    promote_types,
    set_default_dtype,
    short,
    uint8,
    uint16,
    uint32,
    uint64,
)
from gpugrad.dtypes import bool_ as bool
from gpugrad.dtypes import float32 as float
from gpugrad.dtypes import int32 as int
from gpugrad.errors import DeviceError, FileFormatError, GpugradError, OutOfMemoryError
from gpugrad.ops.table import result_type
from gpugrad.printing import set_printoptions
from gpugrad.random import Generator, default_generator, get_rng_state, initial_seed, manual_seed, seed, set_rng_state
from gpugrad.surface import attach, functions, late
from gpugrad.tensor import Size, Tensor

__version__ = "0.1.0"

attach()
# Bound here, not imported above: gpugrad.tensor and gpugrad.devices are modules, but to users functions.
globals().update(namespace.names() | functions())
_devices = importlib.import_module("gpugrad.devices")
device, devices = Device, _devices.devices

_LAZY = set(
    "nn func optim utils datasets io viz linalg special signal amp cpu cuda distributions profiler types "
    "compiler".split()
)
_LAZILY_FROM = {"save": "io", "load": "io", "Value": "value", "vmap": "func", "profile": "profiler"}
_LAZILY_FROM["compile"] = "compiler"
_LAZILY_FROM |= dict.fromkeys(("GradScaler", "autocast"), "amp")
_LAZILY_FROM |= dict.fromkeys(
    "get_autocast_dtype is_autocast_cache_enabled is_autocast_enabled set_autocast_cache_enabled set_autocast_dtype "
    "set_autocast_enabled clear_autocast_cache".split(),
    "amp.autocast_mode",
)


def __getattr__(name: str) -> Any:
    """Modules and functions that are loaded when first used: importing gpugrad stays quick."""
    if name in _LAZY:
        return importlib.import_module(f"gpugrad.{name}")
    if name in _LAZILY_FROM:
        return getattr(importlib.import_module(f"gpugrad.{_LAZILY_FROM[name]}"), name)
    function = late(name)
    if function is not None:
        globals()[name] = function
        return function
    from gpugrad.absent import REASONS

    why = f": {REASONS[name]}" if name in REASONS else ""
    raise AttributeError(f"gpugrad has no {name}{why}")
