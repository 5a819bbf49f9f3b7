"""Convolution layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpugrad.nn import functional as F
from gpugrad.nn.functional.shapes import per_dim
from gpugrad.nn.linear import reset_weight_and_bias
from gpugrad.nn.module import Module
from gpugrad.nn.parameter import Parameter
from gpugrad.ops import creation
from gpugrad.tensor import Tensor

_MODES = ("zeros", "reflect", "replicate", "circular")


class _ConvNd(Module):
    """What all convolutions hold: sizes, ``weight`` and ``bias`` (uniform within 1/sqrt(fan in))."""

    n: int
    transposed: bool

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        output_padding: Any,
        groups: int,
        bias: bool,
        padding_mode: str,
        device: Any,
        dtype: Any,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if groups <= 0:
            raise ValueError(f"{name}: groups must be at least 1, got {groups}")
        if in_channels % groups:
            raise ValueError(f"{name}: in_channels={in_channels} cannot be split evenly into groups={groups}")
        if out_channels % groups:
            raise ValueError(f"{name}: out_channels={out_channels} cannot be split evenly into groups={groups}")
        if padding_mode not in _MODES:
            raise ValueError(f"{name}: padding_mode {padding_mode!r} is unknown; use one of {', '.join(_MODES)}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = per_dim(kernel_size, self.n, "kernel_size", name)
        self.stride = per_dim(stride, self.n, "stride", name)
        self.dilation = per_dim(dilation, self.n, "dilation", name)
        self.output_padding = per_dim(output_padding, self.n, "output_padding", name)
        self.groups = groups
        self.padding_mode = padding_mode
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(f"{name}: padding must be 'valid', 'same' or integers, not {padding!r}")
            if padding == "same" and any(s != 1 for s in self.stride):
                raise ValueError(
                    f"{name}: padding='same' needs stride 1, not {self.stride}; give the padding as integers"
                )
            self.padding: Any = padding
        else:
            self.padding = per_dim(padding, self.n, "padding", name)
        shape = (in_channels, out_channels // groups) if self.transposed else (out_channels, in_channels // groups)
        self.weight = Parameter(creation.empty((*shape, *self.kernel_size), device=device, dtype=dtype))
        self.register_parameter(
            "bias", Parameter(creation.empty((out_channels,), device=device, dtype=dtype)) if bias else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw initial values anew."""
        reset_weight_and_bias(self.weight, self.bias)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if isinstance(self.padding, str) or any(self.padding):
            text += f", padding={self.padding}"
        if any(d != 1 for d in self.dilation):
            text += f", dilation={self.dilation}"
        if any(self.output_padding):
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        return text if self.padding_mode == "zeros" else f"{text}, padding_mode={self.padding_mode}"

    def _amounts(self) -> tuple[int, ...]:
        """Padding in the order ``F.pad`` wants it: (last before, last after, next-to-last before, ...)."""
        pairs: list[int] = []
        for i in reversed(range(self.n)):
            if self.padding == "same":
                total = self.dilation[i] * (self.kernel_size[i] - 1)
                pairs += [total // 2, total - total // 2]
            else:
                p = 0 if self.padding == "valid" else self.padding[i]
                pairs += [p, p]
        return tuple(pairs)


class _Conv(_ConvNd):
    transposed = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            0,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )

    def forward(self, input: Tensor) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros":
            input = F.pad(input, self._amounts(), self.padding_mode)
            padding = 0
        convolve = _CONV[self.n]
        return convolve(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class _ConvTranspose(_ConvNd):
    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if padding_mode != "zeros":
            raise ValueError(f"{type(self).__name__}: padding_mode must be 'zeros', not {padding_mode!r}")
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            output_padding,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        extra = self.output_padding if output_size is None else self._output_padding_for(input, output_size)
        convolve = _CONV_TRANSPOSE[self.n]
        return convolve(input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation)

    def _output_padding_for(self, input: Tensor, output_size: Sequence[int]) -> tuple[int, ...]:
        """The output padding with which the result has the sizes ``output_size``. Raises ValueError."""
        size = tuple(output_size)[-self.n :]
        if len(size) != self.n or len(output_size) not in (self.n, input.dim()):
            raise ValueError(
                f"{type(self).__name__}: output_size must have {self.n} or {input.dim()} elements "
                f"(got {len(output_size)})"
            )
        least = [
            (s - 1) * t - 2 * p + d * (k - 1) + 1
            for s, t, p, d, k in zip(
                input.shape[-self.n :], self.stride, self.padding, self.dilation, self.kernel_size, strict=True
            )
        ]
        if any(not m <= s < m + t for s, m, t in zip(size, least, self.stride, strict=True)):
            most = [m + t - 1 for m, t in zip(least, self.stride, strict=True)]
            raise ValueError(
                f"{type(self).__name__}: output_size {size} cannot come from an input of shape {tuple(input.shape)}; "
                f"choose between {least} and {most}"
            )
        return tuple(s - m for s, m in zip(size, least, strict=True))


_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


class Conv1d(_Conv):
    """Cross-correlation of ``[n, c, l]`` with ``weight`` ``[out, in/groups, k]``, plus ``bias`` ``[out]``.

    ``padding``: zeros on both sides, 'valid' or 'same'; ``padding_mode``: zeros, reflect, replicate, circular."""

    n = 1


class Conv2d(_Conv):
    """Cross-correlation of ``[n, c, h, w]`` with ``weight`` ``[out, in/groups, kh, kw]``; see :class:`Conv1d`."""

    n = 2


class Conv3d(_Conv):
    """Cross-correlation of ``[n, c, d, h, w]``; see :class:`Conv1d`."""

    n = 3


class ConvTranspose1d(_ConvTranspose):
    """The adjoint of :class:`Conv1d` in its input, with ``weight`` ``[in, out/groups, k]``."""

    n = 1


class ConvTranspose2d(_ConvTranspose):
    """The adjoint of :class:`Conv2d` in its input, with ``weight`` ``[in, out/groups, kh, kw]``."""

    n = 2


class ConvTranspose3d(_ConvTranspose):
    """The adjoint of :class:`Conv3d` in its input."""

    n = 3
