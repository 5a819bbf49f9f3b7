"""Weight normalisation by a hook (Salimans & Kingma 2016): w = g * v / |v|."""

from __future__ import annotations

from typing import Any, TypeVar

from gpugrad.nn.module import Module
from gpugrad.nn.parameter import Parameter, UninitializedParameter
from gpugrad.ops.distances import norm_except_dim
from gpugrad.tensor import Tensor

_M = TypeVar("_M", bound=Module)


def normalized(g: Tensor, v: Tensor, dim: int | None) -> Tensor:
    """``v`` scaled to have the norms ``g``."""
    return v * (g / norm_except_dim(v, 2, -1 if dim is None else dim))


class WeightNorm:
    """The forward pre-hook that computes the attribute ``name`` from ``name``_g and ``name``_v."""

    def __init__(self, name: str, dim: int | None) -> None:
        self.name = name
        self.dim = -1 if dim is None else dim

    def compute_weight(self, module: Module) -> Any:
        """The weight of the moment."""
        return normalized(getattr(module, f"{self.name}_g"), getattr(module, f"{self.name}_v"), self.dim)

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self.name, self.compute_weight(module))


def weight_norm(module: _M, name: str = "weight", dim: int | None = 0) -> _M:
    """Replace the parameter ``name`` by its norms ``name``_g (over all dimensions but ``dim``) and its direction
    ``name``_v, and compute it from them before each forward. Returns the module.

    :func:`gpugrad.nn.utils.parametrizations.weight_norm` is the newer form. Raises RuntimeError where it is
    normalised already, ValueError for a lazy parameter."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook.call, WeightNorm) and hook.call.name == name:
            raise RuntimeError(f"weight_norm: the parameter '{name}' is normalised already")
    weight = getattr(module, name)
    if isinstance(weight, UninitializedParameter):
        raise ValueError(f"weight_norm: '{name}' has no shape yet; run the module once first")
    hook = WeightNorm(name, dim)
    delattr(module, name)
    module.register_parameter(f"{name}_g", Parameter(norm_except_dim(weight, 2, hook.dim).detach()))
    module.register_parameter(f"{name}_v", Parameter(weight.detach()))
    setattr(module, name, hook.compute_weight(module))
    module.register_forward_pre_hook(hook)
    return module


def remove_weight_norm(module: _M, name: str = "weight") -> _M:
    """Undo :func:`weight_norm`, keeping the weight of the moment. Returns the module. Raises ValueError."""
    for key, hook in module._forward_pre_hooks.items():
        if isinstance(hook.call, WeightNorm) and hook.call.name == name:
            weight = hook.call.compute_weight(module)
            delattr(module, name)
            delattr(module, f"{name}_g")
            delattr(module, f"{name}_v")
            setattr(module, name, Parameter(weight.detach()))
            del module._forward_pre_hooks[key]
            return module
    raise ValueError(f"remove_weight_norm: {type(module).__name__} has no weight_norm of '{name}'")
