"""Differentiation: the graph, the walk and the grad modes. It knows no operation."""

import importlib
from typing import Any

from gpugrad.autograd.anomaly import detect_anomaly, is_anomaly_enabled, set_detect_anomaly
from gpugrad.autograd.engine import backward, grad
from gpugrad.autograd.function import Function, FunctionCtx
from gpugrad.autograd.graph import Node, Variable
from gpugrad.autograd.modes import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled

__all__ = [
    "Function",
    "FunctionCtx",
    "Node",
    "Variable",
    "backward",
    "detect_anomaly",
    "enable_grad",
    "grad",
    "inference_mode",
    "is_anomaly_enabled",
    "is_grad_enabled",
    "no_grad",
    "set_detect_anomaly",
    "set_grad_enabled",
]

_ABSENT = {
    "forward_ad": "differentiation goes backwards only; functional.jvp gives products with the Jacobian",
}


def __getattr__(name: str) -> Any:
    """What is rarely needed is loaded when first used."""
    if name == "functional":
        return importlib.import_module("gpugrad.autograd.functional")
    if name == "profiler":
        return importlib.import_module("gpugrad.profiler")
    if name == "grad_mode":  # PyTorch's name for the module
        return importlib.import_module("gpugrad.autograd.modes")
    if name in ("GradcheckError", "gradcheck", "gradgradcheck"):
        return getattr(importlib.import_module("gpugrad.autograd.checking"), name)
    reason = _ABSENT.get(name)
    raise AttributeError(f"module 'gpugrad.autograd' has no attribute {name!r}" + (f": {reason}" if reason else ""))
