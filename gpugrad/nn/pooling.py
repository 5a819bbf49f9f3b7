"""Pooling layers."""

from __future__ import annotations

from typing import Any

from gpugrad.nn import functional as F
from gpugrad.nn.functional.shapes import per_dim
from gpugrad.nn.module import Module
from gpugrad.tensor import Tensor


class _MaxPool(Module):
    """Largest element of each window; ``return_indices`` also gives its position."""

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Any:
        pool = getattr(F, self._function)
        return pool(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        )

    _function: str

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """Maxima over windows of ``[n, c, l]``."""

    _function = "max_pool1d"


class MaxPool2d(_MaxPool):
    """Maxima over windows of ``[n, c, h, w]``."""

    _function = "max_pool2d"


class MaxPool3d(_MaxPool):
    """Maxima over windows of ``[n, c, d, h, w]``."""

    _function = "max_pool3d"


class _AvgPoolNd(Module):
    """What all average pools are."""

    kernel_size: Any
    stride: Any
    padding: Any

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPoolNd):
    """Means over windows of ``[n, c, l]``."""

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size = per_dim(kernel_size, 1, "kernel_size", "AvgPool1d")
        self.stride = self.kernel_size if stride is None else per_dim(stride, 1, "stride", "AvgPool1d")
        self.padding = per_dim(padding, 1, "padding", "AvgPool1d")
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool1d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)


class _AvgPool(_AvgPoolNd):
    """Means over windows, or sums over ``divisor_override``."""

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    _function: str

    def forward(self, input: Tensor) -> Tensor:
        pool = getattr(F, self._function)
        return pool(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )


class AvgPool2d(_AvgPool):
    """Means over windows of ``[n, c, h, w]``."""

    _function = "avg_pool2d"


class AvgPool3d(_AvgPool):
    """Means over windows of ``[n, c, d, h, w]``."""

    _function = "avg_pool3d"


class _LPPool(Module):
    """(sum of x^p over each window)^(1/p)."""

    def __init__(self, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> None:
        super().__init__()
        self.norm_type = norm_type
        self.kernel_size = kernel_size
        self.stride = stride
        self.ceil_mode = ceil_mode

    _function: str

    def forward(self, input: Tensor) -> Tensor:
        pool = getattr(F, self._function)
        return pool(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )


class LPPool1d(_LPPool):
    """p-norms over windows of ``[n, c, l]``."""

    _function = "lp_pool1d"


class LPPool2d(_LPPool):
    """p-norms over windows of ``[n, c, h, w]``."""

    _function = "lp_pool2d"


class LPPool3d(_LPPool):
    """p-norms over windows of ``[n, c, d, h, w]``."""

    _function = "lp_pool3d"


class _MaxUnpool(Module):
    """Maxima put back at the positions that the pooling returned, zeros elsewhere."""

    n: int

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        super().__init__()
        name = type(self).__name__
        self.kernel_size = per_dim(kernel_size, self.n, "kernel_size", name)
        self.stride = per_dim(kernel_size if stride is None else stride, self.n, "stride", name)
        self.padding = per_dim(padding, self.n, "padding", name)

    def forward(self, input: Tensor, indices: Tensor, output_size: Any = None) -> Tensor:
        unpool = getattr(F, f"max_unpool{self.n}d")
        return unpool(input, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    """Undoes :class:`MaxPool1d` but for what it lost."""

    n = 1


class MaxUnpool2d(_MaxUnpool):
    """Undoes :class:`MaxPool2d` but for what it lost."""

    n = 2


class MaxUnpool3d(_MaxUnpool):
    """Undoes :class:`MaxPool3d` but for what it lost."""

    n = 3


class _FractionalMaxPool(Module):
    """Maxima over windows at random places (Graham 2014)."""

    n: int

    def __init__(
        self,
        kernel_size: Any,
        output_size: Any = None,
        output_ratio: Any = None,
        return_indices: bool = False,
        _random_samples: Tensor | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.kernel_size = per_dim(kernel_size, self.n, "kernel_size", name)
        if (output_size is None) == (output_ratio is None):
            raise ValueError(f"{name}: give either output_size or output_ratio, got {output_size=}, {output_ratio=}")
        self.output_size = None if output_size is None else per_dim(output_size, self.n, "output_size", name)
        ratios = output_ratio if isinstance(output_ratio, (tuple, list)) else (output_ratio,) * self.n
        self.output_ratio = None if output_ratio is None else tuple(ratios)
        if self.output_ratio is not None and not all(0 < r < 1 for r in self.output_ratio):
            raise ValueError(f"{name}: output_ratio must hold numbers between 0 and 1, not {output_ratio}")
        self.return_indices = return_indices
        self.register_buffer("_random_samples", _random_samples)

    def forward(self, input: Tensor) -> Any:
        pool = getattr(F, f"fractional_max_pool{self.n}d")
        return pool(
            input, self.kernel_size, self.output_size, self.output_ratio, self.return_indices, self._random_samples
        )


class FractionalMaxPool2d(_FractionalMaxPool):
    """Maxima of ``[n, c, h, w]`` over windows at random places."""

    n = 2


class FractionalMaxPool3d(_FractionalMaxPool):
    """Maxima of ``[n, c, d, h, w]`` over windows at random places."""

    n = 3


class _AdaptivePool(Module):
    """Pooling to a given output size."""

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    _function: str

    def forward(self, input: Tensor) -> Any:
        return getattr(F, self._function)(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class _AdaptiveAvgPool(_AdaptivePool):
    """Means over windows that share the size out."""


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """Means of ``[n, c, l]`` to ``[n, c, output_size]``."""

    _function = "adaptive_avg_pool1d"


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """Means of ``[n, c, h, w]`` to ``[n, c, *output_size]``."""

    _function = "adaptive_avg_pool2d"


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """Means of ``[n, c, d, h, w]`` to ``[n, c, *output_size]``."""

    _function = "adaptive_avg_pool3d"


class _AdaptiveMaxPool(_AdaptivePool):
    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices

    def forward(self, input: Tensor) -> Any:
        return getattr(F, self._function)(input, self.output_size, self.return_indices)


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """Maxima of ``[n, c, l]`` to ``[n, c, output_size]``."""

    _function = "adaptive_max_pool1d"


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """Maxima of ``[n, c, h, w]`` to ``[n, c, *output_size]``."""

    _function = "adaptive_max_pool2d"


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """Maxima of ``[n, c, d, h, w]`` to ``[n, c, *output_size]``."""

    _function = "adaptive_max_pool3d"
