"""Padding layers. ``padding`` is a width for every side, or (left, right, top, bottom, front, back)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpugrad.nn import functional as F
from gpugrad.nn.module import Module
from gpugrad.tensor import Tensor


class _Pad(Module):
    n: int
    mode: str = "constant"

    def __init__(self, padding: Any) -> None:
        super().__init__()
        sides = tuple(padding) if isinstance(padding, Sequence) else (padding,) * (2 * self.n)
        if len(sides) != 2 * self.n:
            raise ValueError(f"{type(self).__name__}: padding must be an int or {2 * self.n} ints, not {padding!r}")
        self.padding = sides

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """``value`` around the last dimension."""

    n = 1


class ConstantPad2d(_ConstantPad):
    """``value`` around the last two dimensions."""

    n = 2


class ConstantPad3d(_ConstantPad):
    """``value`` around the last three dimensions."""

    n = 3


class ZeroPad1d(ConstantPad1d):
    """Zeros around the last dimension."""

    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ZeroPad2d(ConstantPad2d):
    """Zeros around the last two dimensions."""

    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ZeroPad3d(ConstantPad3d):
    """Zeros around the last three dimensions."""

    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ReflectionPad(_Pad):
    """The input mirrored at its border elements, which are not repeated."""

    mode = "reflect"


class ReflectionPad1d(_ReflectionPad):
    """The last dimension mirrored at its ends."""

    n = 1


class ReflectionPad2d(_ReflectionPad):
    """The last two dimensions mirrored at their ends."""

    n = 2


class ReflectionPad3d(_ReflectionPad):
    """The last three dimensions mirrored at their ends."""

    n = 3


class _ReplicationPad(_Pad):
    """The border elements repeated."""

    mode = "replicate"


class ReplicationPad1d(_ReplicationPad):
    """The end elements of the last dimension repeated."""

    n = 1


class ReplicationPad2d(_ReplicationPad):
    """The border elements of the last two dimensions repeated."""

    n = 2


class ReplicationPad3d(_ReplicationPad):
    """The border elements of the last three dimensions repeated."""

    n = 3


class _CircularPad(_Pad):
    """The input continued from its other end."""

    mode = "circular"

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() not in (self.n + 1, self.n + 2):
            raise ValueError(
                f"{type(self).__name__}: input of shape {tuple(input.shape)} must have {self.n + 1} or {self.n + 2} "
                "dimensions"
            )
        return super().forward(input)


class CircularPad1d(_CircularPad):
    """The last dimension continued from its other end."""

    n = 1


class CircularPad2d(_CircularPad):
    """The last two dimensions continued from their other ends."""

    n = 2


class CircularPad3d(_CircularPad):
    """The last three dimensions continued from their other ends."""

    n = 3
