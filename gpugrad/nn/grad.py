"""Gradients of convolutions as functions of their own: with respect to the input, and to the weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpugrad.autograd import enable_grad, grad
from gpugrad.nn.functional.conv import conv1d, conv2d, conv3d
from gpugrad.ops import creation
from gpugrad.tensor import Tensor

_CONV = {1: conv1d, 2: conv2d, 3: conv3d}


def _gradient(n: int, of_input: bool, shape: Any, other: Tensor, grad_output: Tensor, options: Any) -> Tensor:
    # A convolution is linear in each argument: the gradient at zero is the gradient.
    unknown = creation.zeros(tuple(shape), dtype=other.dtype, device=other.device, requires_grad=True)
    x, w = (unknown, other.detach()) if of_input else (other.detach(), unknown)
    with enable_grad():
        y = _CONV[n](x, w, None, *options)
        return grad(y, unknown, grad_output)[0]


def conv1d_input(
    input_size: Sequence[int],
    weight: Tensor,
    grad_output: Tensor,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """The gradient of conv1d with respect to an input of ``input_size``."""
    return _gradient(1, True, input_size, weight, grad_output, (stride, padding, dilation, groups))


def conv1d_weight(
    input: Tensor,
    weight_size: Sequence[int],
    grad_output: Tensor,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """The gradient of conv1d with respect to a weight of ``weight_size``."""
    return _gradient(1, False, weight_size, input, grad_output, (stride, padding, dilation, groups))


def conv2d_input(
    input_size: Sequence[int],
    weight: Tensor,
    grad_output: Tensor,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """The gradient of conv2d with respect to an input of ``input_size``."""
    return _gradient(2, True, input_size, weight, grad_output, (stride, padding, dilation, groups))


def conv2d_weight(
    input: Tensor,
    weight_size: Sequence[int],
    grad_output: Tensor,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """The gradient of conv2d with respect to a weight of ``weight_size``."""
    return _gradient(2, False, weight_size, input, grad_output, (stride, padding, dilation, groups))


def conv3d_input(
    input_size: Sequence[int],
    weight: Tensor,
    grad_output: Tensor,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """The gradient of conv3d with respect to an input of ``input_size``."""
    return _gradient(3, True, input_size, weight, grad_output, (stride, padding, dilation, groups))


def conv3d_weight(
    input: Tensor,
    weight_size: Sequence[int],
    grad_output: Tensor,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """The gradient of conv3d with respect to a weight of ``weight_size``."""
    return _gradient(3, False, weight_size, input, grad_output, (stride, padding, dilation, groups))
