"""A batch normalisation in evaluation is an affine map: here it is folded into the layer before it."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from gpugrad.nn.module import Module
from gpugrad.nn.parameter import Parameter
from gpugrad.ops import creation
from gpugrad.tensor import Tensor

_M = TypeVar("_M", bound=Module)


def _check(conv: Module, bn: Module, op: str) -> None:
    if conv.training or bn.training:
        raise AssertionError(f"{op}: both modules must be in evaluation; call eval() on them first")
    if bn.running_mean is None or bn.running_var is None:
        raise AssertionError(f"{op}: the normalisation keeps no running statistics to fold in")


def _fused(
    weight: Tensor, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float, gain: Any, shift: Any, shape: Any
) -> tuple[Parameter, Parameter]:
    bias = creation.zeros_like(mean) if bias is None else bias
    scale = (var + eps).rsqrt()
    if gain is not None:
        scale = scale * gain
    new_bias = (bias - mean) * scale
    if shift is not None:
        new_bias = new_bias + shift
    new_weight = (weight * scale.reshape(shape).to(dtype=weight.dtype)).to(dtype=weight.dtype)
    return (
        Parameter(new_weight.detach(), weight.requires_grad),
        Parameter(new_bias.to(dtype=bias.dtype).detach(), bias.requires_grad),
    )


def fuse_conv_bn_weights(
    conv_w: Tensor,
    conv_b: Tensor | None,
    bn_rm: Tensor,
    bn_rv: Tensor,
    bn_eps: float,
    bn_w: Tensor | None,
    bn_b: Tensor | None,
    transpose: bool = False,
) -> tuple[Parameter, Parameter]:
    """Weight and bias of the convolution that computes a convolution and the normalisation after it."""
    shape = [1] * conv_w.dim()
    shape[1 if transpose else 0] = -1
    return _fused(conv_w, conv_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, shape)


def fuse_conv_bn_eval(conv: _M, bn: Module, transpose: bool = False) -> _M:
    """A copy of ``conv`` (``transpose``: a transposed one) that computes ``bn(conv(x))``. Raises AssertionError in
    training."""
    _check(conv, bn, "fuse_conv_bn_eval")
    fused = copy.deepcopy(conv)
    fused.weight, fused.bias = fuse_conv_bn_weights(
        fused.weight, fused.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias, transpose
    )
    return fused


def fuse_linear_bn_weights(
    linear_w: Tensor,
    linear_b: Tensor | None,
    bn_rm: Tensor,
    bn_rv: Tensor,
    bn_eps: float,
    bn_w: Tensor | None,
    bn_b: Tensor | None,
) -> tuple[Parameter, Parameter]:
    """Weight and bias of the linear layer that computes a linear layer and the normalisation after it."""
    return _fused(linear_w, linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, (-1, 1))


def fuse_linear_bn_eval(linear: _M, bn: Module) -> _M:
    """A copy of ``linear`` that computes ``bn(linear(x))``. Raises AssertionError in training or where the number of
    features differs."""
    _check(linear, bn, "fuse_linear_bn_eval")
    if linear.out_features != bn.num_features and bn.num_features != 1:
        raise AssertionError(
            f"fuse_linear_bn_eval: {linear.out_features} outputs do not go with a normalisation of {bn.num_features}"
        )
    fused = copy.deepcopy(linear)
    fused.weight, fused.bias = fuse_linear_bn_weights(
        fused.weight, fused.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
    )
    return fused
