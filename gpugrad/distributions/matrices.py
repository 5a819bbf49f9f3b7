"""Distributions of vectors with a covariance of low rank, and of matrices."""

from __future__ import annotations

import math
from typing import Any

import gpugrad as gg
from gpugrad.distributions import constraints as c
from gpugrad.distributions.distribution import Distribution, broadcast, one_of
from gpugrad.distributions.gamma import Beta, gamma_sample
from gpugrad.distributions.multivariate import _cholesky_of_inverse


class LowRankMultivariateNormal(Distribution):
    """Normal vectors with the covariance ``cov_factor @ cov_factor.mT + diag(cov_diag)``. Its determinant and inverse
    take factorizations of matrices of the rank only (M. A. Woodbury's identity)."""

    arg_constraints = {
        "loc": c.real_vector,
        "cov_factor": c.independent(c.real, 2),
        "cov_diag": c.independent(c.positive, 1),
    }
    support = c.real_vector
    has_rsample = True

    def __init__(self, loc: Any, cov_factor: Any, cov_diag: Any, validate_args: bool | None = None) -> None:
        if loc.dim() < 1 or cov_factor.dim() < 2 or cov_diag.dim() < 1:
            raise ValueError(
                "LowRankMultivariateNormal: loc and cov_diag need one dimension at least and cov_factor two; got "
                f"{tuple(loc.shape)}, {tuple(cov_diag.shape)} and {tuple(cov_factor.shape)}"
            )
        n, rank = cov_factor.shape[-2:]
        if loc.shape[-1] != n or cov_diag.shape[-1] != n:
            raise ValueError(
                f"LowRankMultivariateNormal: cov_factor of shape {tuple(cov_factor.shape)} is for vectors of {n}; got "
                f"loc {tuple(loc.shape)} and cov_diag {tuple(cov_diag.shape)}"
            )
        batch = gg.broadcast_shapes(loc.shape[:-1], cov_factor.shape[:-2], cov_diag.shape[:-1])
        self.loc, self.cov_diag = loc.expand(*batch, n), cov_diag.expand(*batch, n)
        self.cov_factor = cov_factor.expand(*batch, n, rank)
        super().__init__(batch, (n,), validate_args=validate_args)

    def _capacitance(self) -> tuple[Any, Any]:
        """cov_factor.mT / cov_diag, and the Cholesky factor of what the diagonal and the factor make together."""
        scaled = self.cov_factor.mT / self.cov_diag.unsqueeze(-2)
        eye = gg.eye(self.cov_factor.shape[-1], dtype=self.loc.dtype, device=self.loc.device)
        return scaled, gg.linalg.cholesky(scaled @ self.cov_factor + eye)

    def _log_det(self, tril: Any) -> Any:
        return 2 * tril.diagonal(dim1=-2, dim2=-1).log().sum(-1) + self.cov_diag.log().sum(-1)

    @property
    def mean(self) -> Any:
        return self.loc

    @property
    def mode(self) -> Any:
        return self.loc

    @property
    def variance(self) -> Any:
        return self.cov_factor.square().sum(-1) + self.cov_diag

    @property
    def covariance_matrix(self) -> Any:
        """The full covariance."""
        return self.cov_factor @ self.cov_factor.mT + gg.diag_embed(self.cov_diag)

    @property
    def precision_matrix(self) -> Any:
        """Its inverse."""
        scaled, tril = self._capacitance()
        half = gg.linalg.solve_triangular(tril, scaled, upper=False)
        return gg.diag_embed(self.cov_diag.reciprocal()) - half.mT @ half

    @property
    def scale_tril(self) -> Any:
        """The lower Cholesky factor of the covariance."""
        return gg.linalg.cholesky(self.covariance_matrix)

    def rsample(self, sample_shape: Any = ()) -> Any:
        shape = tuple(self._extended_shape(sample_shape))
        like = {"dtype": self.loc.dtype, "device": self.loc.device}
        along = gg.randn((*shape[:-1], self.cov_factor.shape[-1]), **like)
        return (
            self.loc
            + (self.cov_factor @ along.unsqueeze(-1)).squeeze(-1)
            + self.cov_diag.sqrt() * gg.randn(shape, **like)
        )

    def log_prob(self, value: Any) -> Any:
        gap = self._check(value) - self.loc
        scaled, tril = self._capacitance()
        half = gg.linalg.solve_triangular(tril, scaled @ gap.unsqueeze(-1), upper=False).squeeze(-1)
        distance = (gap.square() / self.cov_diag).sum(-1) - half.square().sum(-1)
        return -0.5 * (self._event_shape[0] * math.log(2 * math.pi) + self._log_det(tril) + distance)

    def entropy(self) -> Any:
        tril = self._capacitance()[1]
        return 0.5 * (self._event_shape[0] * (1 + math.log(2 * math.pi)) + self._log_det(tril))


class LKJCholesky(Distribution):
    """Lower Cholesky factors of ``dim`` by ``dim`` correlation matrices, whose determinant to the power
    ``concentration`` - 1 is their density (D. Lewandowski, D. Kurowicka and H. Joe, J. Multivariate Analysis 100,
    2009): 1 is uniform, more is nearer the identity."""

    arg_constraints = {"concentration": c.positive}
    support = c.corr_cholesky

    def __init__(self, dim: int, concentration: Any = 1.0, validate_args: bool | None = None) -> None:
        if dim < 2:
            raise ValueError(f"LKJCholesky: dim must be at least 2, got {dim}")
        self.dim = dim
        (self.concentration,) = broadcast(concentration)
        super().__init__(self.concentration.shape, (dim, dim), validate_args=validate_args)

    def sample(self, sample_shape: Any = ()) -> Any:
        """Row by row (the onion method of the paper): a random direction of a length whose square is Beta."""
        with gg.no_grad():
            eta, n = self.concentration.unsqueeze(-1), self.dim
            k = gg.arange(1, n, dtype=eta.dtype, device=eta.device)
            beta = Beta((k / 2).expand(*self._batch_shape, n - 1), eta + (n - 1 - k) / 2, validate_args=False)
            length = beta.sample(sample_shape).unsqueeze(-1).sqrt()
            shape = (*length.shape[:-1], n)
            normal = gg.randn(shape, dtype=eta.dtype, device=eta.device).tril()
            rows = length * normal / normal.norm(dim=-1, keepdim=True)
            left = (1 - rows.square().sum(-1)).clamp(min=gg.finfo(eta.dtype).tiny).sqrt()
            lower = gg.cat([gg.zeros_like(rows[..., :1, :]), rows], -2)
            return lower + gg.diag_embed(gg.cat([gg.ones_like(left[..., :1]), left], -1))

    def log_prob(self, value: Any) -> Any:
        value = self._check(value)
        eta, less = self.concentration, self.dim - 1
        diagonal = value.diagonal(dim1=-2, dim2=-1)[..., 1:]
        order = gg.arange(less - 1, -1, -1, dtype=eta.dtype, device=eta.device) + (2 * eta - 2).unsqueeze(-1)
        alpha = eta + 0.5 * less
        norm = 0.5 * less * math.log(math.pi) + gg.mvlgamma(alpha - 0.5, less) - less * gg.lgamma(alpha)
        return (order * diagonal.log()).sum(-1) - norm


class Wishart(Distribution):
    """Symmetric positive definite matrices: sums of ``df`` outer products of normal vectors with mean 0 and the
    covariance given by one of the three matrices, as in :class:`MultivariateNormal`."""

    arg_constraints = {
        "df": c.greater_than(0.0),
        "covariance_matrix": c.positive_definite,
        "precision_matrix": c.positive_definite,
        "scale_tril": c.lower_cholesky,
    }
    support = c.positive_definite
    has_rsample = True

    def __init__(
        self,
        df: Any,
        covariance_matrix: Any = None,
        precision_matrix: Any = None,
        scale_tril: Any = None,
        validate_args: bool | None = None,
    ) -> None:
        name, matrix = one_of(
            "Wishart", covariance_matrix=covariance_matrix, precision_matrix=precision_matrix, scale_tril=scale_tril
        )
        if matrix.dim() < 2:
            raise ValueError(f"Wishart: {name} must have at least two dimensions, got shape {tuple(matrix.shape)}")
        (df,) = broadcast(df if isinstance(df, gg.Tensor) else gg.full_like(matrix[..., 0, 0].detach(), float(df)))
        n = matrix.shape[-1]
        batch = gg.broadcast_shapes(matrix.shape[:-2], df.shape)
        self.df = df.expand(*batch)
        self.__dict__[name] = matrix.expand(*batch, n, n)
        if not bool((self.df.detach() > n - 1).all()):
            raise ValueError(f"Wishart: df must be above {n - 1} for matrices of {n} rows, got {df}")
        super().__init__(batch, (n, n), validate_args=validate_args)
        if name == "scale_tril":
            self._tril = self.__dict__[name]
        elif name == "covariance_matrix":
            self._tril = gg.linalg.cholesky(self.__dict__[name])
        else:
            self._tril = _cholesky_of_inverse(self.__dict__[name])

    def __getattr__(self, name: str) -> Any:
        if "_tril" in self.__dict__:
            if name == "scale_tril":
                return self._tril
            if name == "covariance_matrix":
                return self._tril @ self._tril.mT
            if name == "precision_matrix":
                return gg.cholesky_inverse(self._tril)
        raise AttributeError(f"{type(self).__name__} has no attribute {name}")

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        n, shape = self._event_shape[0], tuple(batch_shape)
        return Wishart(self.df.expand(shape), scale_tril=self._tril.expand(*shape, n, n), validate_args=False)

    def _df(self) -> Any:
        return self.df.reshape(*self.df.shape, 1, 1)

    @property
    def mean(self) -> Any:
        return self._df() * self.covariance_matrix

    @property
    def mode(self) -> Any:
        factor = self._df() - self._event_shape[0] - 1
        return gg.where(factor <= 0, math.nan, factor * self.covariance_matrix)

    @property
    def variance(self) -> Any:
        v = self.covariance_matrix
        d = v.diagonal(dim1=-2, dim2=-1)
        return self._df() * (v.square() + d.unsqueeze(-1) * d.unsqueeze(-2))

    def rsample(self, sample_shape: Any = ()) -> Any:
        """M. S. Bartlett's decomposition: a triangle of normal numbers with chi ones on its diagonal."""
        n, shape = self._event_shape[0], tuple(self._extended_shape(sample_shape))
        like = {"dtype": self._tril.dtype, "device": self._tril.device}
        freedom = self.df.unsqueeze(-1) - gg.arange(n, **like)
        chi = (2 * gamma_sample(freedom / 2, shape[:-1])).sqrt()
        root = self._tril @ (gg.randn(shape, **like).tril(-1) + gg.diag_embed(chi))
        return root @ root.mT

    def _half_log_det(self) -> Any:
        return self._tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def log_prob(self, value: Any) -> Any:
        value = self._check(value)
        n, half = self._event_shape[0], self.df / 2
        trace = gg.cholesky_solve(value, self._tril).diagonal(dim1=-2, dim2=-1).sum(-1)
        norm = self.df * (0.5 * n * math.log(2.0) + self._half_log_det()) + gg.mvlgamma(half, n)
        return 0.5 * (self.df - n - 1) * gg.linalg.slogdet(value).logabsdet - 0.5 * trace - norm

    def entropy(self) -> Any:
        n, half = self._event_shape[0], self.df / 2
        digammas: Any = 0.0
        for i in range(n):
            digammas = digammas + gg.digamma(half - 0.5 * i)
        spread = (n + 1) * (0.5 * n * math.log(2.0) + self._half_log_det()) + gg.mvlgamma(half, n)
        return spread - 0.5 * (self.df - n - 1) * digammas + half * n
