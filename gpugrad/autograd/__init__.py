"""Differentiation: the graph, the walk and the grad modes. It knows no operation."""

from gpugrad.autograd.engine import backward, grad
from gpugrad.autograd.function import Function, FunctionCtx
from gpugrad.autograd.graph import Node
from gpugrad.autograd.modes import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled

__all__ = [
    "Function",
    "FunctionCtx",
    "Node",
    "backward",
    "enable_grad",
    "grad",
    "inference_mode",
    "is_grad_enabled",
    "no_grad",
    "set_grad_enabled",
]
