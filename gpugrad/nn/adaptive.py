"""Adaptive softmax: many classes, of which few are frequent (Grave et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from gpugrad import dtypes
from gpugrad.nn import functional as F
from gpugrad.nn.containers import ModuleList, Sequential
from gpugrad.nn.linear import Linear
from gpugrad.nn.module import Module
from gpugrad.ops import creation
from gpugrad.ops.joining import cat
from gpugrad.tensor import Tensor


class ASMoutput(NamedTuple):
    """The log-probability of each target, ``[n]``, and the mean of their negatives, ``[]``."""

    output: Tensor
    loss: Tensor


class AdaptiveLogSoftmaxWithLoss(Module):
    """Log-softmax over ``n_classes`` sorted by frequency. Classes below ``cutoffs[0]`` are scored by the head; those
    between two cutoffs are a cluster, scored by a tail of ``in_features / div_value**i`` hidden features that is
    computed for the samples that need it alone.

    Raises ValueError for cutoffs that are not increasing positive ints below ``n_classes - 1``."""

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        cutoffs: Sequence[int],
        div_value: float = 4.0,
        head_bias: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        cutoffs = list(cutoffs)
        if not cutoffs:
            raise ValueError("AdaptiveLogSoftmaxWithLoss: cutoffs must hold at least one class number")
        if (
            cutoffs != sorted(set(cutoffs))
            or min(cutoffs) <= 0
            or max(cutoffs) > n_classes - 1
            or any(int(c) != c for c in cutoffs)
        ):
            raise ValueError(
                f"AdaptiveLogSoftmaxWithLoss: cutoffs {cutoffs} must be increasing positive ints of at most "
                f"n_classes - 1 = {n_classes - 1}"
            )
        self.in_features = in_features
        self.n_classes = n_classes
        self.cutoffs = [*cutoffs, n_classes]
        self.div_value = div_value
        self.head_bias = head_bias
        self.shortlist_size = self.cutoffs[0]
        self.n_clusters = len(self.cutoffs) - 1
        self.head_size = self.shortlist_size + self.n_clusters
        place = {"device": device, "dtype": dtype}
        self.head = Linear(in_features, self.head_size, bias=head_bias, **place)
        self.tail = ModuleList()
        for i in range(self.n_clusters):
            hidden = int(in_features // div_value ** (i + 1))
            size = self.cutoffs[i + 1] - self.cutoffs[i]
            self.tail.append(
                Sequential(Linear(in_features, hidden, bias=False, **place), Linear(hidden, size, bias=False, **place))
            )

    def reset_parameters(self) -> None:
        """Draw initial values anew."""
        self.head.reset_parameters()
        for projection, scores in self.tail:  # type: ignore[attr-defined]
            projection.reset_parameters()
            scores.reset_parameters()

    def forward(self, input: Tensor, target: Tensor) -> ASMoutput:
        """``[n, in_features]`` and classes ``[n]``, or ``[in_features]`` and ``[]``. Raises RuntimeError."""
        alone = input.dim() == 1
        x, t = (input.unsqueeze(0), target.reshape(1)) if alone and target.dim() == 0 else (input, target)
        if x.dim() != 2 or t.dim() != 1 or x.shape[0] != t.shape[0]:
            raise RuntimeError(
                f"AdaptiveLogSoftmaxWithLoss: expected input [n, {self.in_features}] and target [n], got "
                f"{tuple(input.shape)} and {tuple(target.shape)}"
            )
        if t.numel() and not 0 <= int(t.min().item()) <= int(t.max().item()) < self.n_classes:
            raise RuntimeError(
                f"AdaptiveLogSoftmaxWithLoss: targets must lie in [0, {self.n_classes - 1}], these reach from "
                f"{int(t.min().item())} to {int(t.max().item())}"
            )
        head = F.log_softmax(self.head(x), dim=1)
        entry = t.clamp(max=self.shortlist_size - 1).to(dtype=dtypes.int64)
        within = creation.zeros(tuple(t.shape), dtype=head.dtype, device=x.device)
        for i in range(self.n_clusters):
            low, high = self.cutoffs[i], self.cutoffs[i + 1]
            rows = ((t >= low).logical_and(t < high)).nonzero().squeeze(1)
            if not rows.numel():
                continue
            scores = F.log_softmax(self.tail[i](x.index_select(0, rows)), dim=1)
            chosen = scores.gather(1, (t.index_select(0, rows) - low).to(dtype=dtypes.int64).unsqueeze(1))
            within = within.index_copy(0, rows, chosen.squeeze(1))
            cluster = creation.full((rows.numel(),), self.shortlist_size + i, dtype=dtypes.int64, device=x.device)
            entry = entry.index_copy(0, rows, cluster)
        output = within + head.gather(1, entry.unsqueeze(1)).squeeze(1)
        loss = (-output).mean()
        return ASMoutput(output.squeeze(0) if alone else output, loss)

    def log_prob(self, input: Tensor) -> Tensor:
        """Log-probabilities of all classes: ``[n, in_features]`` to ``[n, n_classes]``."""
        head = F.log_softmax(self.head(input), dim=1)
        parts = [head[:, : self.shortlist_size]]
        for i, tail in enumerate(self.tail):
            entry = self.shortlist_size + i
            parts.append(F.log_softmax(tail(input), dim=1) + head[:, entry : entry + 1])
        return cat(parts, 1)

    def predict(self, input: Tensor) -> Tensor:
        """The likeliest class of each row: ``[n, in_features]`` to int64 ``[n]``."""
        return self.log_prob(input).argmax(dim=1)
