"""gpugrad: tensors and autograd on the GPU you have. One Tensor; NumPy, CUDA and OpenCL behind it."""

from __future__ import annotations

import importlib
from typing import Any

from gpugrad import autograd, dtypes, ops
from gpugrad.autograd import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled
from gpugrad.devices import (
    Device,
    auto_device,
    get_default_device,
    is_available,
    memory_stats,
    register_backend,
    set_default_device,
    synchronize,
)
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
from gpugrad.dtypes import DType as dtype
from gpugrad.dtypes import bool_ as bool
from gpugrad.dtypes import float32 as float
from gpugrad.dtypes import int32 as int
from gpugrad.errors import DeviceError, FileFormatError, GpugradError, OutOfMemoryError
from gpugrad.ops.table import result_type
from gpugrad.printing import set_printoptions
from gpugrad.random import Generator, get_rng_state, initial_seed, manual_seed, seed, set_rng_state
from gpugrad.tensor import Size, Tensor

__version__ = "0.1.0"

# Bound here, not imported above: gpugrad.tensor and gpugrad.devices are modules, but to users functions.
_NAMES = {
    "creation": "arange as_tensor clone empty empty_like eye from_numpy full full_like linspace logspace ones ones_like "
    "tensor tril triu zeros zeros_like",
    "compound": "add addcdiv addcmul allclose div divide equal isclose lerp sub subtract true_divide",
    "elementwise": "abs absolute acos acosh arccos arccosh arcsin arcsinh arctan arctan2 arctanh asin asinh atan atan2 "
    "atanh bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor ceil clamp clamp_max "
    "clamp_min clip copysign cos cosh eq erf erfc exp exp2 expm1 fix floor floor_divide fmod frac ge greater "
    "greater_equal gt hypot isfinite isinf isnan le less less_equal log log10 log1p log2 logaddexp logical_and logical_not "
    "logical_or logical_xor lt maximum minimum mul multiply ne neg negative not_equal pow reciprocal relu remainder round "
    "rsqrt sgn sigmoid sign sin sinh sqrt square tan tanh trunc where",
    "movement": "as_strided broadcast_tensors broadcast_to cat chunk concat concatenate diagonal expand flatten flip fliplr "
    "flipud hstack meshgrid movedim narrow permute ravel repeat reshape roll select split squeeze stack t tile transpose "
    "unbind unflatten unsqueeze vstack",
    "reductions": "all amax amin aminmax any argmax argmin count_nonzero cumprod cumsum logsumexp max mean min norm prod std "
    "std_mean sum var var_mean",
    "linear": "addmm baddbmm bmm dot einsum matmul mm mv outer tensordot",
    "indexing": "argwhere gather index_add index_copy index_fill index_select masked_fill masked_select nonzero scatter "
    "scatter_add scatter_reduce take take_along_dim",
    "sorting": "argsort kthvalue median msort searchsorted sort topk",
    "sampling": "bernoulli multinomial normal rand rand_like randint randint_like randn randn_like randperm",
    "fused": "log_softmax softmax",
}
for _module, _names in _NAMES.items():
    for _name in _names.split():
        globals()[_name] = getattr(getattr(ops, _module), _name)

_devices = importlib.import_module("gpugrad.devices")
device, devices = _devices.device, _devices.devices

_LAZY = {"nn", "optim", "utils", "datasets", "io"}
_FROM_IO = {"save", "load"}


def __getattr__(name: str) -> Any:
    """nn, optim, utils, datasets and io are loaded when first used: importing gpugrad stays quick."""
    if name in _LAZY:
        return importlib.import_module(f"gpugrad.{name}")
    if name in _FROM_IO:
        return getattr(importlib.import_module("gpugrad.io"), name)
    raise AttributeError(f"module 'gpugrad' has no attribute {name!r}")


def is_tensor(x: Any) -> Any:
    """Whether ``x`` is a Tensor."""
    return isinstance(x, Tensor)


def is_floating_point(x: Tensor) -> Any:
    """Whether the dtype of ``x`` is a floating-point one."""
    return x.dtype.is_floating_point


def numel(x: Tensor) -> Any:
    """The number of elements."""
    return x.numel()


def from_dlpack(x: Any) -> Tensor:
    """A CPU tensor that shares memory with an object of the DLPack protocol (CPU memory)."""
    import numpy as np

    return ops.creation.from_numpy(np.from_dlpack(x))
