"""Spectral normalisation by a hook (Miyato et al. 2018): the weight over its largest singular value."""

from __future__ import annotations

from typing import Any, TypeVar

from gpugrad.autograd import no_grad
from gpugrad.nn.conv import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from gpugrad.nn.functional import normalize
from gpugrad.nn.module import Module
from gpugrad.nn.parameter import Parameter
from gpugrad.tensor import Tensor

_M = TypeVar("_M", bound=Module)


def output_dim(module: Module) -> int:
    """Which dimension of the weight of ``module`` counts its outputs."""
    return 1 if isinstance(module, (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)) else 0


def as_matrix(weight: Tensor, dim: int) -> Tensor:
    """``weight`` as ``[size of dim, all the rest]``."""
    if dim != 0:
        weight = weight.permute(dim, *(d for d in range(weight.dim()) if d != dim))
    return weight.reshape(weight.shape[0], -1)


def power_iteration(matrix: Tensor, u: Tensor, v: Tensor, steps: int, eps: float) -> None:
    """Move ``u`` and ``v``, in place, towards the first singular vectors of ``matrix``."""
    with no_grad():
        for _ in range(steps):
            u.copy_(normalize(matrix.mv(v), dim=0, eps=eps))
            v.copy_(normalize(matrix.t().mv(u), dim=0, eps=eps))


class SpectralNorm:
    """The forward pre-hook that computes the attribute ``name`` from ``name``_orig."""

    def __init__(self, name: str, n_power_iterations: int, dim: int, eps: float) -> None:
        if n_power_iterations <= 0:
            raise ValueError(f"spectral_norm: n_power_iterations must be positive, got {n_power_iterations}")
        self.name = name
        self.n_power_iterations = n_power_iterations
        self.dim = dim
        self.eps = eps

    def compute_weight(self, module: Module, do_power_iteration: bool) -> Tensor:
        """The weight of the moment, the vectors first brought nearer."""
        weight = getattr(module, f"{self.name}_orig")
        u, v = getattr(module, f"{self.name}_u"), getattr(module, f"{self.name}_v")
        matrix = as_matrix(weight, self.dim)
        if do_power_iteration:
            with no_grad():
                for _ in range(self.n_power_iterations):
                    v.copy_(normalize(matrix.t().mv(u), dim=0, eps=self.eps))
                    u.copy_(normalize(matrix.mv(v), dim=0, eps=self.eps))
                # What backward needs must survive the next forward's iteration.
                u, v = u.clone(), v.clone()
        return weight / u.dot(matrix.mv(v))

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self.name, self.compute_weight(module, module.training))


def spectral_norm(
    module: _M, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> _M:
    """Replace the parameter ``name`` by ``name``_orig, and compute it before each forward as that over its largest
    singular value, estimated by ``n_power_iterations`` in training (buffers ``name``_u, ``name``_v). ``dim``: the
    output dimension (1 for transposed convolutions, else 0). Returns the module.

    :func:`gpugrad.nn.utils.parametrizations.spectral_norm` is the newer form. Raises RuntimeError where it is
    normalised already, ValueError."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook.call, SpectralNorm) and hook.call.name == name:
            raise RuntimeError(f"spectral_norm: the parameter '{name}' is normalised already")
    hook = SpectralNorm(name, n_power_iterations, output_dim(module) if dim is None else dim, eps)
    weight = module._parameters.get(name)
    if weight is None:
        raise ValueError(f"spectral_norm: {type(module).__name__} has no parameter '{name}'")
    with no_grad():
        matrix = as_matrix(weight, hook.dim)
        h, w = matrix.shape
        u = normalize(weight.new_empty(h).normal_(0, 1), dim=0, eps=eps)
        v = normalize(weight.new_empty(w).normal_(0, 1), dim=0, eps=eps)
    delattr(module, name)
    module.register_parameter(f"{name}_orig", weight)
    setattr(module, name, weight.detach())
    module.register_buffer(f"{name}_u", u)
    module.register_buffer(f"{name}_v", v)
    module.register_forward_pre_hook(hook)
    return module


def remove_spectral_norm(module: _M, name: str = "weight") -> _M:
    """Undo :func:`spectral_norm`, keeping the weight of the moment. Returns the module. Raises ValueError."""
    for key, hook in module._forward_pre_hooks.items():
        if isinstance(hook.call, SpectralNorm) and hook.call.name == name:
            with no_grad():
                weight = hook.call.compute_weight(module, False)
            for attribute in (name, f"{name}_u", f"{name}_v", f"{name}_orig"):
                delattr(module, attribute)
            module.register_parameter(name, Parameter(weight.detach()))
            del module._forward_pre_hooks[key]
            return module
    raise ValueError(f"remove_spectral_norm: {type(module).__name__} has no spectral_norm of '{name}'")
