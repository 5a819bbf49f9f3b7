"""A name that PyTorch has and that needs sparse gradients."""

from __future__ import annotations

from typing import Any

from gpugrad.optim.optimizer import Optimizer


class SparseAdam(Optimizer):
    """Not available: raises NotImplementedError, since there are no sparse gradients here. Use Adam."""

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
    ) -> None:
        raise NotImplementedError(
            "SparseAdam updates sparse gradients, which gpugrad does not have: gradients of embeddings are dense; "
            "use optim.Adam with the same options"
        )
