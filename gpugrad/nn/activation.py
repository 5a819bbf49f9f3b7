"""Activation layers. Each calls the function of the same name in ``nn.functional``."""

from __future__ import annotations

import warnings
from typing import Any

from gpugrad.nn import functional as F
from gpugrad.nn import init
from gpugrad.nn.module import Module
from gpugrad.nn.parameter import Parameter
from gpugrad.ops import creation
from gpugrad.tensor import Tensor


class _Activation(Module):
    """Calls ``_function`` with the attributes named in ``_arguments``, in that order, which ``repr``
    shows unless they are the default ``inplace=False``."""

    _function: Any
    _arguments: tuple[str, ...] = ()

    def forward(self, input: Tensor) -> Tensor:
        return type(self)._function(input, *(getattr(self, name) for name in self._arguments))

    def extra_repr(self) -> str:
        shown = (name for name in self._arguments if name != "inplace" or self.inplace)
        return ", ".join(f"{name}={getattr(self, name)}" for name in shown)


class _InPlace(_Activation):
    _arguments = ("inplace",)

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace


class ReLU(_InPlace):
    """max(x, 0)."""

    _function = staticmethod(F.relu)

    def forward(self, input: Tensor) -> Tensor:  # without the look-up of arguments: a third of the time of a small one
        return F.relu(input, self.inplace)


class ReLU6(_InPlace):
    """min(max(x, 0), 6)."""

    _function = staticmethod(F.relu6)


class SELU(_InPlace):
    """Self-normalising ELU (Klambauer et al. 2017)."""

    _function = staticmethod(F.selu)


class SiLU(_InPlace):
    """x * sigmoid(x)."""

    _function = staticmethod(F.silu)


class Mish(_InPlace):
    """x * tanh(softplus(x))."""

    _function = staticmethod(F.mish)


class Hardsigmoid(_InPlace):
    """x / 6 + 1/2 cut to [0, 1]."""

    _function = staticmethod(F.hardsigmoid)


class Hardswish(_InPlace):
    """x * hardsigmoid(x)."""

    _function = staticmethod(F.hardswish)


class Tanh(_Activation):
    """Hyperbolic tangent."""

    _function = staticmethod(F.tanh)


class Sigmoid(_Activation):
    """1 / (1 + exp(-x))."""

    _function = staticmethod(F.sigmoid)


class LogSigmoid(_Activation):
    """log(sigmoid(x))."""

    _function = staticmethod(F.logsigmoid)


class Softsign(_Activation):
    """x / (1 + |x|)."""

    _function = staticmethod(F.softsign)


class Tanhshrink(_Activation):
    """x - tanh(x)."""

    _function = staticmethod(F.tanhshrink)


class Hardtanh(_Activation):
    """x cut to [min_val, max_val]."""

    _function = staticmethod(F.hardtanh)
    _arguments = ("min_val", "max_val", "inplace")

    def __init__(
        self,
        min_val: float = -1.0,
        max_val: float = 1.0,
        inplace: bool = False,
        min_value: float | None = None,
        max_value: float | None = None,
    ) -> None:
        super().__init__()
        if min_value is not None or max_value is not None:
            warnings.warn("Hardtanh: min_value and max_value are now min_val and max_val", FutureWarning, stacklevel=2)
            min_val = min_val if min_value is None else min_value
            max_val = max_val if max_value is None else max_value
        if min_val >= max_val:
            raise AssertionError(f"Hardtanh: max_val {max_val} must be larger than min_val {min_val}")
        self.min_val = min_val
        self.max_val = max_val
        self.inplace = inplace


class LeakyReLU(_Activation):
    """x where positive, else negative_slope * x."""

    _function = staticmethod(F.leaky_relu)
    _arguments = ("negative_slope", "inplace")

    def __init__(self, negative_slope: float = 1e-2, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope = negative_slope
        self.inplace = inplace


class ELU(_Activation):
    """x where positive, else alpha * (exp(x) - 1)."""

    _function = staticmethod(F.elu)
    _arguments = ("alpha", "inplace")

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.inplace = inplace


class CELU(_Activation):
    """x where positive, else alpha * (exp(x / alpha) - 1)."""

    _function = staticmethod(F.celu)
    _arguments = ("alpha", "inplace")

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.inplace = inplace


class GELU(_Activation):
    """x times the normal distribution function at x; ``approximate`` is 'none' or 'tanh'."""

    _function = staticmethod(F.gelu)
    _arguments = ("approximate",)

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class Softplus(_Activation):
    """log(1 + exp(beta * x)) / beta."""

    _function = staticmethod(F.softplus)
    _arguments = ("beta", "threshold")

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta = beta
        self.threshold = threshold


class Softshrink(_Activation):
    """x moved towards 0 by ``lambd``."""

    _function = staticmethod(F.softshrink)
    _arguments = ("lambd",)

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def extra_repr(self) -> str:
        return str(self.lambd)


class Hardshrink(_Activation):
    """x, but 0 where |x| <= lambd."""

    _function = staticmethod(F.hardshrink)
    _arguments = ("lambd",)

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def extra_repr(self) -> str:
        return str(self.lambd)


class Threshold(_Activation):
    """x where x > threshold, else ``value``."""

    _function = staticmethod(F.threshold)
    _arguments = ("threshold", "value", "inplace")

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__()
        self.threshold = threshold
        self.value = value
        self.inplace = inplace


class GLU(_Activation):
    """First half along ``dim`` times the sigmoid of the second."""

    _function = staticmethod(F.glu)
    _arguments = ("dim",)

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim


class RReLU(_Activation):
    """LeakyReLU with slopes drawn from [lower, upper) in training."""

    _function = staticmethod(F.rrelu)
    _arguments = ("lower", "upper", "training", "inplace")

    def __init__(self, lower: float = 1.0 / 8, upper: float = 1.0 / 3, inplace: bool = False) -> None:
        super().__init__()
        self.lower = lower
        self.upper = upper
        self.inplace = inplace

    def extra_repr(self) -> str:
        return f"lower={self.lower}, upper={self.upper}" + (", inplace=True" if self.inplace else "")


class PReLU(Module):
    """x where positive, else weight * x, with one learned ``weight`` or one per channel."""

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.init = init
        self.weight = Parameter(creation.empty((num_parameters,), device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """All weights ``init``."""
        init.constant_(self.weight, self.init)

    def forward(self, input: Tensor) -> Tensor:
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class _Softmax(_Activation):
    _arguments = ("dim",)

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim


class Softmax(_Softmax):
    """exp(x) normalised to sum 1 along ``dim``."""

    _function = staticmethod(F.softmax)


class LogSoftmax(_Softmax):
    """log(softmax(x))."""

    _function = staticmethod(F.log_softmax)


class Softmin(_Softmax):
    """softmax of -x."""

    _function = staticmethod(F.softmin)


class Softmax2d(Module):
    """softmax over the channels of ``[n, c, h, w]`` or ``[c, h, w]``."""

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() not in (3, 4):
            raise ValueError(f"Softmax2d: input of shape {tuple(input.shape)} is neither [N, C, H, W] nor [C, H, W]")
        return F.softmax(input, -3)
