"""The normal distribution of vectors."""

from __future__ import annotations

import math
from typing import Any

import gpugrad as gg
from gpugrad.distributions import constraints as c
from gpugrad.distributions.distribution import Distribution, one_of


class MultivariateNormal(Distribution):
    """Normal vectors with mean ``loc`` and a covariance given by one of ``covariance_matrix``,
    ``precision_matrix`` (its inverse) and ``scale_tril`` (its lower Cholesky factor)."""

    arg_constraints = {
        "loc": c.real_vector,
        "covariance_matrix": c.positive_definite,
        "precision_matrix": c.positive_definite,
        "scale_tril": c.lower_cholesky,
    }
    support = c.real_vector
    has_rsample = True

    def __init__(
        self,
        loc: Any,
        covariance_matrix: Any = None,
        precision_matrix: Any = None,
        scale_tril: Any = None,
        validate_args: bool | None = None,
    ) -> None:
        if loc.dim() < 1:
            raise ValueError("MultivariateNormal: loc must have at least one dimension")
        name, matrix = one_of(
            "MultivariateNormal",
            covariance_matrix=covariance_matrix,
            scale_tril=scale_tril,
            precision_matrix=precision_matrix,
        )
        if matrix.dim() < 2:
            raise ValueError(f"MultivariateNormal: {name} must have at least two dimensions")
        batch = gg.broadcast_shapes(matrix.shape[:-2], loc.shape[:-1])
        n = loc.shape[-1]
        self.__dict__[name] = matrix.expand(*batch, n, n)
        self.loc = loc.expand(*batch, n)
        super().__init__(batch, (n,), validate_args=validate_args)
        if name == "scale_tril":
            self._tril = scale_tril
        elif name == "covariance_matrix":
            self._tril = gg.linalg.cholesky(matrix)
        else:
            self._tril = _cholesky_of_inverse(matrix)

    def __getattr__(self, name: str) -> Any:
        if "_tril" in self.__dict__:
            n = self._event_shape[0]
            if name == "scale_tril":
                return self._tril.expand(*self._batch_shape, n, n)
            if name == "covariance_matrix":
                return (self._tril @ self._tril.mT).expand(*self._batch_shape, n, n)
            if name == "precision_matrix":
                return gg.cholesky_inverse(self._tril).expand(*self._batch_shape, n, n)
        raise AttributeError(f"{type(self).__name__} has no attribute {name}")

    @property
    def mean(self) -> Any:
        return self.loc

    @property
    def mode(self) -> Any:
        return self.loc

    @property
    def variance(self) -> Any:
        return self._tril.square().sum(-1).expand(*self._batch_shape, *self._event_shape)

    def rsample(self, sample_shape: Any = ()) -> Any:
        eps = gg.randn(tuple(self._extended_shape(sample_shape)), dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + (self._tril @ eps.unsqueeze(-1)).squeeze(-1)

    def _half_log_det(self) -> Any:
        return self._tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def log_prob(self, value: Any) -> Any:
        return -0.5 * (
            self._event_shape[0] * math.log(2 * math.pi) + mahalanobis(self._tril, self._check(value) - self.loc)
        ) - (self._half_log_det())

    def entropy(self) -> Any:
        n = self._event_shape[0]
        return (0.5 * n * (1.0 + math.log(2 * math.pi)) + self._half_log_det()).expand(*self._batch_shape)


def mahalanobis(tril: Any, difference: Any) -> Any:
    """Squared length of ``difference`` measured by the covariance ``tril @ tril.mT``."""
    solved = gg.linalg.solve_triangular(tril, difference.unsqueeze(-1), upper=False)
    return solved.squeeze(-1).square().sum(-1)


def _cholesky_of_inverse(matrix: Any) -> Any:
    """Lower factor of the inverse: from the factor of the matrix turned upside down."""
    turned = gg.linalg.cholesky(matrix.flip((-2, -1)))
    upper = turned.flip((-2, -1)).mT
    eye = gg.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return gg.linalg.solve_triangular(upper, eye, upper=False)
