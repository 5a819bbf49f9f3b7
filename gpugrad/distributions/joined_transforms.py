"""Transforms of parts of a tensor, to triangular matrices, and by a distribution function."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gpugrad as gg
from gpugrad.distributions import constraints as c
from gpugrad.distributions.transforms import Transform
from gpugrad.nn.functional import softplus


class CatTransform(Transform):
    """One transform for each of the parts, of ``lengths`` (1 each unless given), that lie along ``dim``."""

    def __init__(
        self, tseq: Sequence[Transform], dim: int = 0, lengths: Sequence[int] | None = None, cache_size: int = 0
    ) -> None:
        super().__init__(cache_size)
        self.transforms, self.dim = list(tseq), dim
        self.lengths = [1] * len(self.transforms) if lengths is None else list(lengths)
        if len(self.lengths) != len(self.transforms):
            raise ValueError(f"CatTransform: {len(self.lengths)} lengths for {len(self.transforms)} transforms")
        self.bijective = all(t.bijective for t in self.transforms)
        self.event_dim = max(t.event_dim for t in self.transforms)
        self.domain = c.cat([t.domain for t in self.transforms], dim, self.lengths)
        self.codomain = c.cat([t.codomain for t in self.transforms], dim, self.lengths)

    @property
    def length(self) -> int:
        """Size along ``dim``."""
        return sum(self.lengths)

    def _parts(self, x: Any) -> Any:
        if x.shape[self.dim] != self.length:
            raise ValueError(
                f"CatTransform: the parts have {self.length} elements along dimension {self.dim}, the tensor has shape "
                f"{tuple(x.shape)}"
            )
        return x.split(self.lengths, self.dim)

    def __call__(self, x: Any) -> Any:
        return gg.cat([t(v) for t, v in zip(self.transforms, self._parts(x), strict=True)], self.dim)

    def _inverse(self, y: Any) -> Any:
        return gg.cat([t.inv(v) for t, v in zip(self.transforms, self._parts(y), strict=True)], self.dim)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        parts = zip(self.transforms, self._parts(x), self._parts(y), strict=True)
        logs = []
        for t, u, v in parts:
            log = t.log_abs_det_jacobian(u, v)
            dims = self.event_dim - t.event_dim
            logs.append(log.sum(tuple(range(-dims, 0))) if dims else log)
        dim = self.dim - x.dim() if self.dim >= 0 else self.dim
        dim += self.event_dim
        if dim < 0:
            return gg.cat(logs, dim)
        return sum(logs)


class StackTransform(Transform):
    """One transform for each of the slices along ``dim``."""

    def __init__(self, tseq: Sequence[Transform], dim: int = 0, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.transforms, self.dim = list(tseq), dim
        self.bijective = all(t.bijective for t in self.transforms)
        self.domain = c.stack([t.domain for t in self.transforms], dim)
        self.codomain = c.stack([t.codomain for t in self.transforms], dim)

    def _slices(self, x: Any) -> Any:
        if x.shape[self.dim] != len(self.transforms):
            raise ValueError(
                f"StackTransform: {len(self.transforms)} transforms for dimension {self.dim} of shape {tuple(x.shape)}"
            )
        return x.unbind(self.dim)

    def __call__(self, x: Any) -> Any:
        return gg.stack([t(v) for t, v in zip(self.transforms, self._slices(x), strict=True)], self.dim)

    def _inverse(self, y: Any) -> Any:
        return gg.stack([t.inv(v) for t, v in zip(self.transforms, self._slices(y), strict=True)], self.dim)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        pairs = zip(self.transforms, self._slices(x), self._slices(y), strict=True)
        return gg.stack([t.log_abs_det_jacobian(u, v) for t, u, v in pairs], self.dim)


class CumulativeDistributionTransform(Transform):
    """The distribution function of ``distribution``: its samples become uniform ones."""

    codomain = c.unit_interval

    def __init__(self, distribution: Any, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.distribution = distribution
        self.domain = distribution.support

    def __call__(self, x: Any) -> Any:
        return self.distribution.cdf(x)

    def _inverse(self, y: Any) -> Any:
        return self.distribution.icdf(y)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return self.distribution.log_prob(x)


class LowerCholeskyTransform(Transform):
    """Matrices to lower triangular ones with a positive diagonal: exp of it, and nothing above it."""

    event_dim = 2
    domain, codomain = c.independent(c.real, 2), c.lower_cholesky

    def __call__(self, x: Any) -> Any:
        return x.tril(-1) + gg.diag_embed(x.diagonal(dim1=-2, dim2=-1).exp())

    def _inverse(self, y: Any) -> Any:
        return y.tril(-1) + gg.diag_embed(y.diagonal(dim1=-2, dim2=-1).log())


class PositiveDefiniteTransform(Transform):
    """Matrices to positive definite ones: L @ L.mT of :class:`LowerCholeskyTransform`."""

    event_dim = 2
    domain, codomain = c.independent(c.real, 2), c.positive_definite

    def __call__(self, x: Any) -> Any:
        lower = LowerCholeskyTransform()(x)
        return lower @ lower.mT

    def _inverse(self, y: Any) -> Any:
        return LowerCholeskyTransform()._inverse(gg.linalg.cholesky(y))


class CorrCholeskyTransform(Transform):
    """n (n - 1) / 2 numbers to the lower Cholesky factor of an n by n correlation matrix: tanh makes partial
    correlations of them, each of which takes its share of what its row has left of length 1."""

    event_dim = 1
    domain, codomain = c.real_vector, c.corr_cholesky

    @staticmethod
    def _size(count: int) -> int:
        n = (1 + math.isqrt(1 + 8 * count)) // 2
        if n * (n - 1) != 2 * count:
            raise ValueError(f"CorrCholeskyTransform: {count} is not n * (n - 1) / 2 for any n")
        return n

    @staticmethod
    def _place(n: int, like: Any) -> tuple[Any, Any]:
        index = gg.tril_indices(n, n, -1, device=like.device)
        return index[0], index[1]

    def __call__(self, x: Any) -> Any:
        n = self._size(x.shape[-1])
        eps = gg.finfo(x.dtype).eps
        r = gg.zeros(*x.shape[:-1], n, n, dtype=x.dtype, device=x.device)
        i, j = self._place(n, x)
        r[..., i, j] = x.tanh().clamp(min=-1 + eps, max=1 - eps)
        left = (1 - r.square()).sqrt().cumprod(-1)
        before = gg.nn.functional.pad(left[..., :-1], (1, 0), value=1.0)
        return (r + gg.eye(n, dtype=x.dtype, device=x.device)) * before

    def _inverse(self, y: Any) -> Any:
        left = (1 - y.square().cumsum(-1)).clamp(min=gg.finfo(y.dtype).tiny)
        before = gg.nn.functional.pad(left[..., :-1], (1, 0), value=1.0)
        i, j = self._place(y.shape[-1], y)
        return gg.atanh((y / before.sqrt())[..., i, j])

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        left = 1 - y.square().cumsum(-1)
        n = y.shape[-1]
        index = gg.tril_indices(n, n, -2, device=y.device)
        share = 0.5 * left[..., index[0], index[1]].log().sum(-1)
        return share - 2 * (x + softplus(-2 * x) - math.log(2.0)).sum(-1)

    def forward_shape(self, shape: Any) -> Any:
        n = self._size(shape[-1])
        return gg.Size((*shape[:-1], n, n))

    def inverse_shape(self, shape: Any) -> Any:
        if len(shape) < 2 or shape[-1] != shape[-2]:
            raise ValueError(f"CorrCholeskyTransform: expected the shape of square matrices, got {tuple(shape)}")
        return gg.Size((*shape[:-2], shape[-1] * (shape[-1] - 1) // 2))
