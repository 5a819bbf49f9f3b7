"""Ready-made parametrizations: weight norm, spectral norm, orthogonal matrices."""

from __future__ import annotations

from typing import Any, TypeVar

from gpugrad import linalg
from gpugrad.autograd import no_grad
from gpugrad.linalg.classic import geqrf
from gpugrad.nn.functional import normalize
from gpugrad.nn.module import Module
from gpugrad.nn.utils.parametrize import register_parametrization
from gpugrad.nn.utils.spectral_norm import as_matrix, output_dim, power_iteration
from gpugrad.nn.utils.weight_norm import normalized
from gpugrad.ops import creation
from gpugrad.ops.distances import norm_except_dim
from gpugrad.ops.joining import cat
from gpugrad.tensor import Tensor

_M = TypeVar("_M", bound=Module)
_MAPS = ("matrix_exp", "cayley", "householder")


class _WeightNorm(Module):
    """(norms, direction) to a weight (Salimans & Kingma 2016)."""

    def __init__(self, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = -1 if dim is None else dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        return normalized(weight_g, weight_v, self.dim)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return norm_except_dim(weight, 2, self.dim), weight


def weight_norm(module: _M, name: str = "weight", dim: int | None = 0) -> _M:
    """Compute ``name`` as g * v / |v|, the norms being over all dimensions but ``dim``: g is
    ``parametrizations.<name>.original0``, v ``original1``. State dicts of the older hook form are read too. Returns
    the module."""
    register_parametrization(module, name, _WeightNorm(dim), unsafe=True)

    def read_older(state: Any, prefix: str, *rest: Any) -> None:
        for old, new in ((f"{name}_g", "original0"), (f"{name}_v", "original1")):
            if f"{prefix}{old}" in state:
                state[f"{prefix}parametrizations.{name}.{new}"] = state.pop(f"{prefix}{old}")

    module._register_load_state_dict_pre_hook(read_older)
    return module


class _SpectralNorm(Module):
    """A weight over its largest singular value, estimated by power iteration (Miyato et al. 2018)."""

    def __init__(self, weight: Tensor, n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12) -> None:
        super().__init__()
        ndim = weight.dim()
        if not -ndim <= dim < ndim:
            raise IndexError(f"spectral_norm: dim={dim} is out of range for a weight of {ndim} dimensions")
        if n_power_iterations <= 0:
            raise ValueError(f"spectral_norm: n_power_iterations must be positive, got {n_power_iterations}")
        self.dim = dim % ndim
        self.eps = eps
        if ndim > 1:
            self.n_power_iterations = n_power_iterations
            with no_grad():
                matrix = as_matrix(weight, self.dim)
                h, w = matrix.shape
                self.register_buffer("_u", normalize(matrix.new_empty(h).normal_(0, 1), dim=0, eps=eps))
                self.register_buffer("_v", normalize(matrix.new_empty(w).normal_(0, 1), dim=0, eps=eps))
                power_iteration(matrix, self._u, self._v, 15, eps)

    def forward(self, weight: Tensor) -> Tensor:
        if weight.dim() == 1:
            return normalize(weight, dim=0, eps=self.eps)
        matrix = as_matrix(weight, self.dim)
        if self.training:
            power_iteration(matrix, self._u, self._v, self.n_power_iterations, self.eps)
        # What backward needs must survive the next call's iteration.
        u, v = self._u.clone(), self._v.clone()
        return weight / u.dot(matrix.mv(v))

    def right_inverse(self, value: Tensor) -> Tensor:
        return value


def spectral_norm(
    module: _M, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> _M:
    """Compute ``name`` as ``parametrizations.<name>.original`` over its largest singular value, which
    ``n_power_iterations`` per use in training follow. ``dim``: the output dimension (1 for transposed
    convolutions, else 0). Returns the module. Raises ValueError, IndexError."""
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"spectral_norm: {type(module).__name__} has no parameter or buffer '{name}'")
    chosen = output_dim(module) if dim is None else dim
    return register_parametrization(module, name, _SpectralNorm(weight, n_power_iterations, chosen, eps))


# -- orthogonal matrices ------------------------------------------------------------------


def _signs(x: Tensor) -> Tensor:
    return x.diagonal(dim1=-2, dim2=-1).sgn().unsqueeze(-2)


def _orthogonalised(a: Tensor) -> Tensor:
    """The Q of the QR decomposition of ``a`` whose R has a positive diagonal."""
    x, tau = geqrf(a)
    return linalg.householder_product(x, tau) * _signs(x)


def _is_orthogonal(q: Tensor) -> bool:
    k = q.shape[-1]
    identity = creation.eye(k, dtype=q.dtype, device=q.device)
    eps = 10.0 * k * (1e-7 if q.itemsize == 4 else 2e-16)
    return bool(((q.mT.matmul(q) - identity).abs() <= eps).all().item())


class _Orthogonal(Module):
    """A square or tall matrix to one with orthonormal columns (wide: rows), by one of three maps.

    With a base Q0, ``use_trivialization``, the map is taken around Q0 (Lezcano-Casado 2019), so that any matrix can
    be assigned."""

    def __init__(self, weight: Tensor, orthogonal_map: str, use_trivialization: bool) -> None:
        super().__init__()
        self.shape = tuple(weight.shape)
        self.orthogonal_map = orthogonal_map
        self.use_trivialization = use_trivialization
        if use_trivialization:
            self.register_buffer("base", None)

    def forward(self, x: Tensor) -> Tensor:
        n, k = x.shape[-2:]
        wide = n < k
        if wide:
            x, n, k = x.mT, k, n
        if self.orthogonal_map == "householder":
            a = x.tril(-1)
            tau = 2.0 / (1.0 + (a * a).sum(-2))
            q = linalg.householder_product(a, tau) * x.diagonal(dim1=-2, dim2=-1).trunc().detach().unsqueeze(-2)
        else:
            a = x.tril()
            if n != k:
                a = cat([a, a.new_zeros((*a.shape[:-2], n, n - k))], -1)
            a = a - a.mT
            if self.orthogonal_map == "matrix_exp":
                q = linalg.matrix_exp(a)
            else:
                identity = creation.eye(n, dtype=a.dtype, device=a.device)
                q = linalg.solve(identity - 0.5 * a, identity + 0.5 * a)
            q = q[..., :k]
        base = self._buffers.get("base")
        if base is not None:
            q = base.matmul(q)
        return q.mT if wide else q

    def right_inverse(self, q: Tensor) -> Tensor:
        if tuple(q.shape) != self.shape:
            raise ValueError(f"orthogonal: expected a matrix of shape {self.shape}, got {tuple(q.shape)}")
        given = q
        n, k = q.shape[-2:]
        wide = n < k
        if wide:
            q, n, k = q.mT, k, n
        if not self.use_trivialization:
            if self.orthogonal_map != "householder":
                raise NotImplementedError(
                    f"orthogonal: a matrix cannot be assigned with {self.orthogonal_map} and use_trivialization=False"
                )
            a, tau = geqrf(q)
            # The diagonal carries the signs; where a reflection is none, R's own sign is the opposite.
            line = _signs(a).squeeze(-2)
            line = line * (1.0 - 2.0 * (tau == 0).to(dtype=a.dtype))
            a = a.tril(-1) + a.triu(1) + _diagonal_matrix(line, a)
            return a.mT if wide else a
        if n == k:
            q = q.clone() if _is_orthogonal(q) else _orthogonalised(q)
        else:
            more = q.new_empty((*q.shape[:-2], n, n - k)).normal_(0, 1)
            q = _orthogonalised(cat([q, more], -1))
        self.base = q
        minus = creation.zeros((*given.shape[:-2], min(n, k)), dtype=given.dtype, device=given.device) - 1.0
        return _diagonal_matrix(minus, given)


def _diagonal_matrix(line: Tensor, like: Tensor) -> Tensor:
    """Zeros of the shape of ``like`` with ``line`` as the diagonal."""
    n, k = like.shape[-2:]
    eye = creation.eye(n, k, dtype=like.dtype, device=like.device)
    full = line if k == line.shape[-1] else cat([line, line.new_zeros((*line.shape[:-1], k - line.shape[-1]))], -1)
    return eye * full.unsqueeze(-2)


def orthogonal(
    module: _M, name: str = "weight", orthogonal_map: str | None = None, *, use_trivialization: bool = True
) -> _M:
    """Keep the matrix ``name`` (or a batch of them) orthogonal: with orthonormal columns, or rows if it is wide.

    ``orthogonal_map``: how a free matrix is mapped to an orthogonal one: matrix_exp (default for square ones), cayley
    or householder (default for others). ``use_trivialization``: around a base that is set when a matrix is assigned;
    without it only householder can be assigned to. Returns the module. Raises ValueError."""
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"orthogonal: {type(module).__name__} has no parameter or buffer '{name}'")
    if weight.dim() < 2:
        raise ValueError(f"orthogonal: '{name}' of shape {tuple(weight.shape)} must be a matrix or a batch of them")
    if orthogonal_map is None:
        orthogonal_map = "matrix_exp" if weight.shape[-2] == weight.shape[-1] else "householder"
    if orthogonal_map not in _MAPS:
        raise ValueError(f"orthogonal: orthogonal_map {orthogonal_map!r} is unknown; use one of {', '.join(_MAPS)}")
    return register_parametrization(module, name, _Orthogonal(weight, orthogonal_map, use_trivialization), unsafe=True)
