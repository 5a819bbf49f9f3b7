"""Parameters as one flat vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

from gpugrad.ops import joining
from gpugrad.tensor import Tensor


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters flattened and joined: ``[total number of elements]``."""
    params = list(parameters)
    if not params:
        raise ValueError("parameters_to_vector: there are no parameters")
    device = params[0].device
    for p in params:
        if p.device != device:
            raise TypeError(
                f"parameters_to_vector: parameters are on {device} and on {p.device}; "
                "move the model to one device first"
            )
    return joining.cat([p.reshape(-1) for p in params])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Give each parameter its slice of ``vec`` (as laid out by :func:`parameters_to_vector`) as data."""
    if not isinstance(vec, Tensor):
        raise TypeError(f"vector_to_parameters: expected a Tensor, got {type(vec).__name__}")
    params = list(parameters)
    total = sum(p.numel() for p in params)
    if vec.numel() != total:
        raise ValueError(f"vector_to_parameters: the vector has {vec.numel()} elements, the parameters {total}")
    start = 0
    for p in params:
        p.data = vec[start : start + p.numel()].view(p.shape).detach()
        start += p.numel()
