"""``torch.types``: names for annotations."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any, TypeAlias

from gpugrad.devices import Device as _device
from gpugrad.dtypes import DType as _dtype
from gpugrad.tensor import Tensor
from gpugrad.tensor_info import Size

_int: TypeAlias = builtins.int
_float: TypeAlias = builtins.float
_bool: TypeAlias = builtins.bool
Number = _int | _float | _bool
Device = _device | str | _int | None
_size = Size | list[_int] | tuple[_int, ...]
_TensorOrTensors = Tensor | Sequence[Tensor]
FileLike = Any

__all__ = ["Device", "FileLike", "Number", "Size", "Tensor"]
__all__ += ["_TensorOrTensors", "_bool", "_device", "_dtype", "_float", "_int", "_size"]
