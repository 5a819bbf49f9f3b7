"""Activations. All are elementwise and keep shape and dtype unless said otherwise.

``inplace=True`` writes the result into ``input``, where autograd allows it.
"""

from __future__ import annotations

import warnings
from typing import Any

from gpugrad import dtypes, ops
from gpugrad.autograd import is_grad_enabled
from gpugrad.errors import DTypeError
from gpugrad.ops import creation
from gpugrad.ops.creation import rounded_once
from gpugrad.ops.elementwise import where
from gpugrad.ops.reductions import require_floating
from gpugrad.tensor import Tensor


def _into(input: Tensor, result: Tensor, inplace: bool) -> Tensor:
    return input.copy_(result) if inplace else result


def _kept(input: Tensor, inplace: bool) -> Tensor:
    """What a result is computed from whose derivative needs the input: a copy, where the result will overwrite it."""
    return input.clone() if inplace and is_grad_enabled() and input.requires_grad else input


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0)."""
    return _into(input, input.relu(), True) if inplace else input.relu()


def relu_(input: Tensor) -> Tensor:
    """:func:`relu` in place."""
    return relu(input, inplace=True)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6)."""
    return hardtanh(input, 0.0, 6.0, inplace)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x cut to [min_val, max_val]; the gradient is 0 from the bounds outwards."""
    if min_val > max_val:
        raise ValueError(f"hardtanh: min_val {min_val} is larger than max_val {max_val}")
    if not input.dtype.is_floating_point:
        return _into(input, _hardtanh_of_integers(input, min_val, max_val), inplace)
    inside = (input > min_val) & (input < max_val)
    return _into(input, where(inside, input, input.detach().clamp(min_val, max_val)), inplace)


def _hardtanh_of_integers(input: Tensor, min_val: float, max_val: float) -> Tensor:
    low, high = int(min_val), int(max_val)  # towards zero, as the bounds have the dtype of the input
    if input.dtype.category == 0 or (low < 0 and not dtypes.iinfo(input.dtype).min):
        raise DTypeError(
            f"hardtanh: bounds {min_val} and {max_val} do not fit {input.dtype.name} input of shape "
            f"{tuple(input.shape)}; convert it with .float()"
        )
    return input.clamp(low, high)


def hardtanh_(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """:func:`hardtanh` in place."""
    return hardtanh(input, min_val, max_val, inplace=True)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where positive, else negative_slope * x."""
    require_floating(input, "leaky_relu")
    return _into(input, ops.leaky_relu(input, negative_slope), inplace)


def leaky_relu_(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """:func:`leaky_relu` in place."""
    return leaky_relu(input, negative_slope, inplace=True)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where positive, else weight * x; ``weight`` has one element, or one per channel (dimension 1)."""
    if weight.numel() != 1:
        if input.dim() == 0:
            raise RuntimeError(f"prelu: a 0-d input takes a single weight, not {weight.numel()}")
        channels = input.shape[1] if input.dim() > 1 else 1
        if weight.dim() != 1 or weight.numel() != channels:
            raise RuntimeError(
                f"prelu: weight of shape {tuple(weight.shape)} fits neither all channels (one value) nor each of the "
                f"{channels} channels of input {tuple(input.shape)}"
            )
        weight = weight.reshape((1, -1) + (1,) * (input.dim() - 2))
    elif input.dim() == 0:
        weight = weight.reshape(())
    return where(input > 0, input, weight * input)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where positive, else alpha * (exp(x) - 1) (Clevert et al. 2015)."""
    require_floating(input, "elu")
    return _into(input, _elu(_kept(input, inplace), alpha, 1.0, 1.0), inplace)


def elu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """:func:`elu` in place."""
    return elu(input, alpha, inplace=True)


@rounded_once
def _elu(x: Tensor, alpha: float, scale: float, beta: float) -> Tensor:
    # The clamp keeps exp of large positives, which where() drops, from overflowing its gradient.
    negative = (x.clamp(max=0) * beta).expm1() * (alpha * scale)
    return where(x > 0, x * scale if scale != 1.0 else x, negative)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """ELU with the scale and alpha that keep mean 0 and variance 1 (Klambauer et al. 2017)."""
    require_floating(input, "selu")
    x = _kept(input, inplace)
    return _into(input, _elu(x, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946, 1.0), inplace)


def selu_(input: Tensor) -> Tensor:
    """:func:`selu` in place."""
    return selu(input, inplace=True)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where positive, else alpha * (exp(x / alpha) - 1) (Barron 2017). Raises RuntimeError for alpha 0."""
    require_floating(input, "celu")
    if alpha == 0:
        raise RuntimeError("celu: alpha=0 would divide by zero; use relu, its limit")
    return _into(input, _elu(_kept(input, inplace), alpha, 1.0, 1.0 / alpha), inplace)


def celu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """:func:`celu` in place."""
    return celu(input, alpha, inplace=True)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x times the normal distribution function at x (Hendrycks & Gimpel 2016); ``approximate="tanh"``
    uses their tanh formula. Raises RuntimeError for another name."""
    return ops.gelu(input, approximate=approximate)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x * sigmoid(x)."""
    return _into(input, ops.silu(_kept(input, inplace)), inplace)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * tanh(softplus(x)) (Misra 2019)."""
    x = _kept(input, inplace)
    return _into(input, _mish(x), inplace)


@rounded_once
def _mish(x: Tensor) -> Tensor:
    return x * softplus(x).tanh()


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta * x)) / beta, and x itself where beta * x > threshold."""
    return ops.softplus(input, beta, threshold)


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x)), without overflow on either side."""
    require_floating(input, "logsigmoid")
    return _logsigmoid(input)


@rounded_once
def _logsigmoid(input: Tensor) -> Tensor:
    negative = input.clamp(max=0)
    positive = input.clamp(min=0)
    return where(input < 0, negative - negative.exp().log1p(), -((-positive).exp().log1p()))


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """x / 6 + 1/2 cut to [0, 1]."""
    require_floating(input, "hardsigmoid")
    return _into(input, _hardsigmoid(input), inplace)


@rounded_once
def _hardsigmoid(x: Tensor) -> Tensor:
    return hardtanh(x, -3.0, 3.0) / 6.0 + 0.5


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * hardsigmoid(x) (Howard et al. 2019)."""
    require_floating(input, "hardswish")
    return _into(input, _hardswish(_kept(input, inplace)), inplace)


@rounded_once
def _hardswish(x: Tensor) -> Tensor:
    return x * _hardsigmoid(x)


@rounded_once
def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    return input / (input.abs() + 1.0)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x moved towards 0 by ``lambd``, 0 where |x| <= lambd. Raises RuntimeError for a negative ``lambd``."""
    require_floating(input, "softshrink")
    if lambd < 0:
        raise RuntimeError(f"softshrink: lambd must not be negative, got {lambd}")
    shifted = where(input > 0, input - lambd, input + lambd)
    return where(input.abs() <= lambd, 0.0 * input, shifted)


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x, but 0 where |x| <= lambd."""
    require_floating(input, "hardshrink")
    return where(input.abs() <= lambd, 0.0 * input.detach(), input)


@rounded_once
def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x)."""
    return input - input.tanh()


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where x > threshold, else ``value``."""
    return _into(input, input.masked_fill(input <= threshold, value), inplace)


def threshold_(input: Tensor, threshold: float, value: float) -> Tensor:
    """:func:`threshold` in place."""
    return input.masked_fill_(input <= threshold, value)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """First half along ``dim`` times the sigmoid of the second half (Dauphin et al. 2016); halves ``dim``."""
    require_floating(input, "glu")
    if input.dim() == 0:
        raise RuntimeError("glu: a 0-d input cannot be split in two; it needs a dimension of even size")
    if input.shape[dim] % 2:
        raise RuntimeError(
            f"glu: dimension {dim} of input {tuple(input.shape)} cannot be split in two: size {input.shape[dim]} is odd"
        )
    return _gated(*input.chunk(2, dim))


@rounded_once
def _gated(a: Tensor, b: Tensor) -> Tensor:
    return a * b.sigmoid()


def tanh(input: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return input.tanh()


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return input.sigmoid()


def rrelu(
    input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False, inplace: bool = False
) -> Tensor:
    """leaky_relu with a slope drawn from [lower, upper) for each element in training, else their mean. Raises
    RuntimeError for lower > upper."""
    if lower > upper:
        raise RuntimeError(f"rrelu: lower={lower} must not be above upper={upper}")
    if not training:
        return leaky_relu(input, (lower + upper) / 2, inplace)
    slope = creation.empty(input.shape, dtype=input.dtype, device=input.device).uniform_(lower, upper)
    return _into(input, where(input > 0, input, input * slope), inplace)


def rrelu_(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False) -> Tensor:
    """:func:`rrelu` in place."""
    return rrelu(input, lower, upper, training, inplace=True)


def _implicit_dim(name: str, ndim: int) -> int:
    warnings.warn(
        f"{name}: without dim the dimension is guessed from the number of dimensions, here {ndim}; pass dim=",
        stacklevel=3,
    )
    return 0 if ndim in (0, 1, 3) else 1


def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """exp(x) normalised to sum 1 along ``dim``; ``dtype`` converts the input first."""
    x = input if dtype is None else input.to(dtype=dtype)
    return ops.softmax(x, _implicit_dim("softmax", input.dim()) if dim is None else dim)


def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """softmax of -x."""
    return softmax(-input, _implicit_dim("softmin", input.dim()) if dim is None else dim, dtype=dtype)


def log_softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """log(softmax(x)), computed without overflow."""
    x = input if dtype is None else input.to(dtype=dtype)
    return ops.log_softmax(x, _implicit_dim("log_softmax", input.dim()) if dim is None else dim)


def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """Softmax of ``logits`` plus Gumbel noise, over ``tau`` (Jang et al. 2016); with ``hard`` one-hot, its
    gradient that of the soft sample."""
    uniform = creation.empty(logits.shape, dtype=logits.dtype, device=logits.device).uniform_(1e-20, 1.0)
    soft = ops.softmax((logits - (-uniform.log()).log()) / tau, dim)
    if not hard:
        return soft
    index = soft.detach().argmax(dim, keepdim=True)
    one_hot = creation.zeros_like(soft).scatter_(dim, index, 1.0)
    return one_hot - soft.detach() + soft
