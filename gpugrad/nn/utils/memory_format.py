"""Memory formats of whole modules: accepted, and without effect, as tensors have one layout here."""

from __future__ import annotations

from typing import Any, TypeVar

from gpugrad.nn.module import Module

_M = TypeVar("_M", bound=Module)


def convert_conv2d_weight_memory_format(module: _M, memory_format: Any) -> _M:
    """``module`` as it is: the order of elements in memory is not a choice here."""
    return module


def convert_conv3d_weight_memory_format(module: _M, memory_format: Any) -> _M:
    """``module`` as it is: the order of elements in memory is not a choice here."""
    return module
