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


class AvgPool1d(Module):
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

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _AvgPool(Module):
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

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


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


class AdaptiveAvgPool1d(_AdaptivePool):
    """Means of ``[n, c, l]`` to ``[n, c, output_size]``."""

    _function = "adaptive_avg_pool1d"


class AdaptiveAvgPool2d(_AdaptivePool):
    """Means of ``[n, c, h, w]`` to ``[n, c, *output_size]``."""

    _function = "adaptive_avg_pool2d"


class AdaptiveAvgPool3d(_AdaptivePool):
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
