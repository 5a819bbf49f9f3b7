"""LoRA: small matrices that are learned beside large ones that stay (Hu et al., "LoRA: low-rank adaptation of large
language models", 2021)."""

from __future__ import annotations

import math

import gpugrad as gg
from gpugrad import nn
from gpugrad.nn import functional as F

#: the linear maps of a block that get an adapter unless told otherwise
TARGETS = ("qkv", "out", "up", "down", "gate_proj", "up_proj", "down_proj")


class Adapted(nn.Module):
    """A linear map ``x @ W.T + b`` with ``x @ A.T @ B.T * (alpha / rank)`` added; only A ``[rank, in]`` and
    B ``[out, rank]`` are learned, and B begins at 0, so that at first nothing is changed."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.base, self.scale, self.drop = base, alpha / rank, nn.Dropout(dropout)
        where = {"device": base.weight.device, "dtype": base.weight.dtype}
        self.a = nn.Parameter(gg.empty(rank, base.in_features, **where))
        self.b = nn.Parameter(gg.zeros(base.out_features, rank, **where))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x: gg.Tensor) -> gg.Tensor:
        return self.base(x) + F.linear(F.linear(self.drop(x), self.a), self.b) * self.scale

    @gg.no_grad()
    def merged(self) -> nn.Linear:
        """The linear map that does the same: ``W + B @ A * (alpha / rank)``."""
        self.base.weight += self.b @ self.a * self.scale
        return self.base


def adapt(
    model: nn.Module, rank: int = 8, alpha: float = 16.0, dropout: float = 0.0, targets: tuple[str, ...] = TARGETS
) -> list[nn.Parameter]:
    """Freeze ``model`` and put adapters at all its linear maps of these names; returns what is to be learned.

    Raises ValueError where there is no such map."""
    model.requires_grad_(False)
    places = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if name in targets and isinstance(child, nn.Linear)
    ]
    if not places:
        raise ValueError(f"the model has no linear map called {' or '.join(targets)}")
    for parent, name, child in places:
        setattr(parent, name, Adapted(child, rank, alpha, dropout))
    return [p for p in model.parameters() if p.requires_grad]


def adapters(model: nn.Module) -> dict[str, gg.Tensor]:
    """The learned matrices by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def merge(model: nn.Module) -> None:
    """Add every adapter into the matrix it stands beside, and take it away; in place."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Adapted):
                setattr(parent, name, child.merged())
    model.requires_grad_(True)
