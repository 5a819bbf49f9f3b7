"""Initial values for parameters: the fillers of ``torch.nn.init``.

All fill their tensor in place without recording gradients and return it. Random ones draw from
gpugrad's generator (or ``generator``), so one seed gives the same values on every device.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from gpugrad.autograd import no_grad
from gpugrad.ops import creation, sampling
from gpugrad.ops.special import erf
from gpugrad.tensor import Tensor

_LINEAR = {
    "linear",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "sigmoid",
}


def calculate_gain(nonlinearity: str, param: int | float | None = None) -> float:
    """Factor that keeps the variance of activations through ``nonlinearity``.

    ``param``: the negative slope of leaky_relu (default 0.01). Raises ValueError."""
    if nonlinearity in _LINEAR:
        return 1.0
    if nonlinearity == "tanh":
        return 5.0 / 3.0
    if nonlinearity == "relu":
        return math.sqrt(2.0)
    if nonlinearity == "leaky_relu":
        if param is None:
            param = 0.01
        if isinstance(param, bool) or not isinstance(param, (int, float)):
            raise ValueError(f"calculate_gain: the slope of leaky_relu must be a number, not {param!r}")
        return math.sqrt(2.0 / (1.0 + param**2))
    if nonlinearity == "selu":
        return 3.0 / 4.0
    raise ValueError(f"calculate_gain: nonlinearity {nonlinearity!r} is unknown")


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    """Inputs feeding one unit and units fed by one input, for a weight ``[out, in, *kernel]``."""
    if tensor.dim() < 2:
        raise ValueError(
            f"a tensor of shape {tuple(tensor.shape)} has no fan-in and fan-out: they need [out, in, *kernel], at "
            "least 2 dimensions"
        )
    out, into, *kernel = tensor.shape
    field = math.prod(kernel)
    return into * field, out * field


def _calculate_correct_fan(tensor: Tensor, mode: str) -> int:
    mode = mode.lower()
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode {mode!r} is unknown; use 'fan_in' or 'fan_out'")
    fan_in, fan_out = _calculate_fan_in_and_fan_out(tensor)
    return fan_in if mode == "fan_in" else fan_out


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Any = None) -> Tensor:
    """Uniform in [a, b)."""
    with no_grad():
        return tensor.uniform_(a, b, generator=generator)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Tensor:
    """Normal with the given mean and standard deviation."""
    with no_grad():
        return tensor.normal_(mean, std, generator=generator)


def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, generator: Any = None
) -> Tensor:
    """Normal, cut to [a, b], by inverting the distribution function at a uniform value."""
    if mean < a - 2 * std or mean > b + 2 * std:
        warnings.warn(
            f"trunc_normal_: mean={mean} lies over two std={std} outside [{a}, {b}], so values are drawn from a far "
            "tail and lose accuracy",
            stacklevel=2,
        )

    def below(x: float) -> float:
        return (1.0 + math.erf(x / math.sqrt(2.0))) / 2.0

    low, high = below((a - mean) / std), below((b - mean) / std)
    draw = sampling.rand(tuple(tensor.shape), generator=generator, device="cpu").numpy().astype(np.float64)
    inner = _erfinv(2 * (low + (high - low) * draw) - 1)
    return _fill_from_host(tensor, np.clip(mean + std * math.sqrt(2.0) * inner, a, b))


def _erfinv(y: np.ndarray) -> np.ndarray:
    """The inverse of erf on (-1, 1): an elementary first guess (Winitzki 2008), then Newton's method."""
    y = np.clip(y, -1 + 1e-15, 1 - 1e-15)
    log = np.log1p(-y * y)
    half = 2 / (math.pi * 0.147) + log / 2
    x = np.sign(y) * np.sqrt(np.sqrt(half * half - log / 0.147) - half)
    for _ in range(4):
        x = x - (erf(x) - y) * (math.sqrt(math.pi) / 2) * np.exp(x * x)
    return x


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Every element ``val``."""
    with no_grad():
        return tensor.fill_(val)


def ones_(tensor: Tensor) -> Tensor:
    """Every element 1."""
    return constant_(tensor, 1.0)


def zeros_(tensor: Tensor) -> Tensor:
    """Every element 0."""
    return constant_(tensor, 0.0)


def _fill_from_host(tensor: Tensor, values: np.ndarray) -> Tensor:
    with no_grad():
        return tensor.copy_(creation.from_numpy(np.ascontiguousarray(values, dtype=np.float32)))


def eye_(tensor: Tensor) -> Tensor:
    """The identity matrix, for a 2-dimensional tensor. Raises ValueError."""
    if tensor.dim() != 2:
        raise ValueError(f"eye_: the tensor must have exactly 2 dimensions, not shape {tuple(tensor.shape)}")
    return _fill_from_host(tensor, np.eye(*tensor.shape))


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Convolution weight ``[out, in/groups, *kernel]`` that hands input channels through."""
    if tensor.dim() not in (3, 4, 5):
        raise ValueError(
            f"dirac_: the tensor must be a weight of 3 to 5 dimensions, not of shape {tuple(tensor.shape)}"
        )
    out, into, *kernel = tensor.shape
    if out % groups:
        raise ValueError(f"dirac_: {out} output channels cannot be split evenly into groups={groups}")
    values = np.zeros(tensor.shape, np.float32)
    centre = tuple(k // 2 for k in kernel)
    per_group = out // groups
    for g in range(groups):
        for d in range(min(per_group, into)):
            values[(g * per_group + d, d, *centre)] = 1.0
    return _fill_from_host(tensor, values)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Uniform with variance ``gain^2 * 2 / (fan_in + fan_out)`` (Glorot & Bengio 2010)."""
    fan_in, fan_out = _calculate_fan_in_and_fan_out(tensor)
    bound = math.sqrt(3.0) * gain * math.sqrt(2.0 / (fan_in + fan_out))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Normal with variance ``gain^2 * 2 / (fan_in + fan_out)`` (Glorot & Bengio 2010)."""
    fan_in, fan_out = _calculate_fan_in_and_fan_out(tensor)
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / (fan_in + fan_out)), generator)


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    return calculate_gain(nonlinearity, a) / math.sqrt(_calculate_correct_fan(tensor, mode))


def kaiming_uniform_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Any = None
) -> Tensor:
    """Uniform with variance ``gain^2 / fan`` (He et al. 2015)."""
    if 0 in tensor.shape:
        warnings.warn(
            f"kaiming_uniform_: a tensor of shape {tuple(tensor.shape)} has no elements to fill", stacklevel=2
        )
        return tensor
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Any = None
) -> Tensor:
    """Normal with variance ``gain^2 / fan`` (He et al. 2015)."""
    if 0 in tensor.shape:
        warnings.warn(f"kaiming_normal_: a tensor of shape {tuple(tensor.shape)} has no elements to fill", stacklevel=2)
        return tensor
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def orthogonal_(tensor: Tensor, gain: float = 1, generator: Any = None) -> Tensor:
    """A (semi-)orthogonal matrix of shape ``[n, rest flattened]``, times ``gain`` (Saxe et al. 2013).

    The QR decomposition runs on the host; the normal values come from gpugrad's generator."""
    if tensor.dim() < 2:
        raise ValueError(
            f"orthogonal_: a tensor of shape {tuple(tensor.shape)} is no matrix; it needs 2 dimensions or more"
        )
    if tensor.numel() == 0:
        return tensor
    rows = tensor.shape[0]
    columns = tensor.numel() // rows
    draw = creation.empty((rows, columns), device="cpu").normal_(0, 1, generator=generator)
    matrix = draw._array.T if rows < columns else draw._array
    q, r = draw._backend.factorize("qr", [matrix], complete=False)
    q = q * np.sign(np.diag(r))  # makes the decomposition, and so the distribution, unique
    q = q.T if rows < columns else q
    return _fill_from_host(tensor, (q * gain).reshape(tensor.shape))


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Any = None) -> Tensor:
    """Normal values, with a fraction ``sparsity`` of each column set to 0 (Martens 2010)."""
    if tensor.dim() != 2:
        raise ValueError(f"sparse_: the tensor must have exactly 2 dimensions, not shape {tuple(tensor.shape)}")
    rows, columns = tensor.shape
    zeros = math.ceil(sparsity * rows)
    mask = np.ones((rows, columns), np.float32)
    for column in range(columns):
        mask[sampling.randperm(rows, generator=generator, device="cpu").numpy()[:zeros], column] = 0.0
    with no_grad():
        tensor.normal_(0, std, generator=generator)
        return tensor.mul_(creation.from_numpy(mask).to(tensor))


# -- the names before PyTorch 0.4, without the underscore ----------------------------------


def _old_name(function: Any) -> Any:
    new = function.__name__
    old = new[:-1]

    def call(*args: Any, **kwargs: Any) -> Tensor:
        warnings.warn(f"init.{old}: the old name of init.{new}", FutureWarning, stacklevel=2)
        return function(*args, **kwargs)

    call.__name__ = call.__qualname__ = old
    call.__doc__ = f"The old name of :func:`{new}`."
    return call


uniform = _old_name(uniform_)
normal = _old_name(normal_)
constant = _old_name(constant_)
eye = _old_name(eye_)
dirac = _old_name(dirac_)
xavier_uniform = _old_name(xavier_uniform_)
xavier_normal = _old_name(xavier_normal_)
kaiming_uniform = _old_name(kaiming_uniform_)
kaiming_normal = _old_name(kaiming_normal_)
orthogonal = _old_name(orthogonal_)
sparse = _old_name(sparse_)
