"""What all distributions have in common."""

from __future__ import annotations

from typing import Any

import gpugrad as gg
from gpugrad.distributions.constraints import Constraint


class Distribution:
    """A family of probability distributions, one for each element of ``batch_shape``; a sample of one
    has ``event_shape``. Subclasses name their parameters in ``arg_constraints``.

    With ``validate_args`` (the default, see :meth:`set_default_validate_args`) parameters and the values
    given to :meth:`log_prob` are checked, which reads them: a ValueError names the constraint."""

    has_rsample = False
    has_enumerate_support = False
    _validate_args = True
    arg_constraints: dict[str, Constraint] = {}
    support: Any = None

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Whether arguments are checked where a distribution is not told."""
        if value not in (True, False):
            raise ValueError(f"set_default_validate_args: expected True or False, got {value!r}")
        Distribution._validate_args = value

    def __init__(self, batch_shape: Any = (), event_shape: Any = (), validate_args: bool | None = None) -> None:
        self._batch_shape = gg.Size(batch_shape)
        self._event_shape = gg.Size(event_shape)
        if validate_args is not None:
            self._validate_args = validate_args
        if self._validate_args:
            for name, constraint in self.arg_constraints.items():
                if name not in self.__dict__:
                    continue  # derived from the parameter that was given
                value = getattr(self, name)
                if not bool(constraint.check(value.detach()).all()):
                    raise ValueError(
                        f"{type(self).__name__}: parameter {name} of shape {tuple(value.shape)} must satisfy "
                        f"{constraint}, but found {value}"
                    )

    @property
    def batch_shape(self) -> Any:
        """Shape of the family."""
        return self._batch_shape

    @property
    def event_shape(self) -> Any:
        """Shape of one sample of one member."""
        return self._event_shape

    def _extended_shape(self, sample_shape: Any = ()) -> Any:
        return gg.Size((*sample_shape, *self._batch_shape, *self._event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same with its parameters expanded to ``batch_shape``."""
        batch_shape = gg.Size(batch_shape)
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        for name, constraint in self._all_constraints().items():
            if name in self.__dict__:
                value = self.__dict__[name]
                event = tuple(value.shape[value.dim() - constraint.event_dim :])
                new.__dict__[name] = value.expand(*batch_shape, *event)
        new._batch_shape = batch_shape
        return new

    @classmethod
    def _all_constraints(cls) -> dict[str, Constraint]:
        """Of the parameters of this class and of those it is made from."""
        merged: dict[str, Constraint] = {}
        for base in reversed(cls.__mro__):
            merged |= vars(base).get("arg_constraints", {})
        return merged

    @property
    def mean(self) -> Any:
        """Expected value."""
        raise NotImplementedError(f"{type(self).__name__} has no mean in closed form")

    @property
    def mode(self) -> Any:
        """Most probable value."""
        raise NotImplementedError(f"{type(self).__name__} has no mode in closed form")

    @property
    def variance(self) -> Any:
        """Expected squared deviation from the mean."""
        raise NotImplementedError(f"{type(self).__name__} has no variance in closed form")

    @property
    def stddev(self) -> Any:
        """Square root of the variance."""
        return self.variance.sqrt()

    def sample(self, sample_shape: Any = ()) -> Any:
        """A tensor of ``sample_shape + batch_shape + event_shape``, without a gradient."""
        with gg.no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Any = ()) -> Any:
        """A sample that is a differentiable function of the parameters (reparametrised)."""
        raise NotImplementedError(
            f"{type(self).__name__} has no reparametrised sample here; use sample() with log_prob(), as in REINFORCE"
        )

    def sample_n(self, n: int) -> Any:
        """``sample((n,))``."""
        return self.sample((n,))

    def log_prob(self, value: Any) -> Any:
        """Logarithm of the density or the probability at ``value``."""
        raise NotImplementedError(f"{type(self).__name__} has no log_prob")

    def cdf(self, value: Any) -> Any:
        """Probability of at most ``value``."""
        raise NotImplementedError(f"{type(self).__name__} has no cdf here")

    def icdf(self, value: Any) -> Any:
        """The value at which :meth:`cdf` is ``value``."""
        raise NotImplementedError(f"{type(self).__name__} has no icdf here")

    def entropy(self) -> Any:
        """Expected value of ``-log_prob``."""
        raise NotImplementedError(f"{type(self).__name__} has no entropy in closed form")

    def perplexity(self) -> Any:
        """``exp(entropy())``."""
        return self.entropy().exp()

    def enumerate_support(self, expand: bool = True) -> Any:
        """All values there are, along a new first dimension (discrete distributions)."""
        raise NotImplementedError(f"{type(self).__name__} has no finite support to enumerate")

    def _check(self, value: Any) -> Any:
        """``value``, checked if arguments are."""
        if self._validate_args or not isinstance(value, gg.Tensor):
            self._validate_sample(value)
        return value

    def _validate_sample(self, value: Any) -> None:
        """Raises ValueError unless ``value`` is a tensor in the support, of a shape that fits. (PyTorch's name: the
        ``log_prob`` of users' distributions calls it.)"""
        if not isinstance(value, gg.Tensor):
            raise ValueError(f"{type(self).__name__}: the value must be a Tensor, not {type(value).__name__}")
        gg.broadcast_shapes(value.shape, self._batch_shape + self._event_shape)  # raises, naming both
        support = self.support
        if support is not None and not bool(support.check(value.detach()).all()):
            raise ValueError(
                f"{type(self).__name__}: a value of shape {tuple(value.shape)} lies outside the support "
                f"{support}: {value}"
            )

    def _get_checked_instance(self, cls: type, _instance: Any = None) -> Any:
        """What the ``expand`` of users' distributions fills: an object of this class without its ``__init__`` run.
        Raises NotImplementedError for a subclass that has another ``__init__`` but no ``expand``."""
        if _instance is None and type(self).__init__ is not cls.__init__:  # type: ignore[misc]
            raise NotImplementedError(
                f"{type(self).__name__} has an __init__ of its own, so it needs an expand of its own as well"
            )
        return object.__new__(type(self)) if _instance is None else _instance

    def __repr__(self) -> str:
        parts = []
        for name in self.arg_constraints:
            if name in self.__dict__:
                value = self.__dict__[name]
                parts.append(f"{name}: {value if value.numel() == 1 else value.size()}")
        return f"{type(self).__name__}({', '.join(parts)})"


class ExponentialFamily(Distribution):
    """Distributions whose density is exp(<t(x), theta> - F(theta) + k(x)). A subclass gives ``theta`` as
    ``_natural_params`` (a tuple of tensors), F as ``_log_normalizer(*theta)`` and the mean of ``k(x)`` as
    ``_mean_carrier_measure``; the entropy follows by differentiation (F. Nielsen and R. Nock, Entropies and cross-
    entropies of exponential families, 2010)."""

    @property
    def _natural_params(self) -> tuple[Any, ...]:
        raise NotImplementedError(f"{type(self).__name__} does not define _natural_params")

    def _log_normalizer(self, *natural_params: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define _log_normalizer")

    @property
    def _mean_carrier_measure(self) -> float:
        raise NotImplementedError(f"{type(self).__name__} does not define _mean_carrier_measure")

    def entropy(self) -> Any:
        thetas = [theta.detach().requires_grad_() for theta in self._natural_params]
        with gg.enable_grad():
            norm = self._log_normalizer(*thetas)
            slopes = gg.autograd.grad(norm.sum(), thetas, create_graph=True)
        total = norm - self._mean_carrier_measure
        for theta, slope in zip(thetas, slopes, strict=True):
            product = theta * slope
            extra = product.dim() - len(self._batch_shape)
            total = total - sum_last(product, extra)
        return total


def broadcast(*values: Any) -> tuple[Any, ...]:
    """Parameters as tensors of one shape; numbers take the dtype and device of the tensors."""
    first = next((v for v in values if isinstance(v, gg.Tensor)), None)
    dtype = gg.get_default_dtype() if first is None or not first.is_floating_point() else first.dtype
    device = None if first is None else first.device
    tensors = [v if isinstance(v, gg.Tensor) else gg.full((), float(v), dtype=dtype, device=device) for v in values]
    tensors = [t if t.is_floating_point() else t.to(dtype) for t in tensors]
    return tuple(gg.broadcast_tensors(*tensors))


def clamp_probs(probs: Any) -> Any:
    """Probabilities kept a rounding error away from 0 and 1."""
    eps = gg.finfo(probs.dtype).eps
    return probs.clamp(min=eps, max=1 - eps)


def probs_to_logits(probs: Any, is_binary: bool = False) -> Any:
    """log(p), or log(p / (1 - p)) for binary ones."""
    p = clamp_probs(probs)
    return gg.log(p) - gg.log1p(-p) if is_binary else gg.log(p)


def logits_to_probs(logits: Any, is_binary: bool = False) -> Any:
    """softmax, or sigmoid for binary ones."""
    return gg.sigmoid(logits) if is_binary else gg.softmax(logits, dim=-1)


def one_of(name: str, **given: Any) -> tuple[str, Any]:
    """The one parameter of two that is given. Raises ValueError unless exactly one is."""
    present = [(k, v) for k, v in given.items() if v is not None]
    if len(present) != 1:
        raise ValueError(f"{name}: give either {' or '.join(given)}, and not both")
    return present[0]


def sum_last(x: Any, dims: int) -> Any:
    """Summed over the last ``dims`` dimensions."""
    return x.sum(tuple(range(-dims, 0))) if dims else x


def uniform_open(shape: Any, like: Any) -> Any:
    """Uniform numbers strictly between 0 and 1, of the dtype and on the device of ``like``."""
    u = gg.rand(tuple(shape), dtype=like.dtype, device=like.device)
    return u.clamp(min=gg.finfo(like.dtype).tiny)


class ProbsOrLogits(Distribution):
    """Given by ``probs`` or by ``logits``, whichever it is: the other is derived when it is asked for."""

    #: one probability of two outcomes, or those of several in the last dimension
    _binary = True

    def _probs_of(self, logits: Any) -> Any:
        return logits_to_probs(logits, is_binary=self._binary)

    def __getattr__(self, name: str) -> Any:
        if name == "probs" and "logits" in self.__dict__:
            return self._probs_of(self.__dict__["logits"])
        if name == "logits" and "probs" in self.__dict__:
            return probs_to_logits(self.__dict__["probs"], is_binary=self._binary)
        raise AttributeError(f"{type(self).__name__} has no attribute {name}")

    @property
    def _param(self) -> Any:
        return self.__dict__["probs" if "probs" in self.__dict__ else "logits"]
