"""Averages of a model's weights over training: stochastic weight averaging (Izmailov et al. 2018) and
exponential moving averages (Polyak & Juditsky 1992)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from copy import deepcopy
from itertools import chain
from typing import Any

from gpugrad import dtypes
from gpugrad.autograd import no_grad
from gpugrad.nn.module import Module
from gpugrad.nn.normalization import _BatchNorm
from gpugrad.ops import creation
from gpugrad.optim.lr_scheduler.base import LRScheduler
from gpugrad.optim.optimizer import Optimizer
from gpugrad.tensor import Tensor

Params = list[Tensor] | tuple[Tensor, ...]

__all__ = [
    "SWALR",
    "AveragedModel",
    "get_ema_avg_fn",
    "get_ema_multi_avg_fn",
    "get_swa_avg_fn",
    "get_swa_multi_avg_fn",
    "update_bn",
]


def _check_decay(decay: float) -> None:
    if not 0.0 <= decay <= 1.0:
        raise ValueError(f"decay must lie in [0, 1], got {decay}")


def get_ema_avg_fn(decay: float = 0.999) -> Callable[[Tensor, Tensor, Any], Tensor]:
    """The exponential moving average: (average, new value, count) -> decay * average + (1 - decay) * new value.
    Raises ValueError for a decay outside [0, 1]."""
    _check_decay(decay)

    @no_grad()
    def ema_update(ema_param: Tensor, current_param: Tensor, num_averaged: Any) -> Tensor:
        return decay * ema_param + (1 - decay) * current_param

    return ema_update


def get_swa_avg_fn() -> Callable[[Tensor, Tensor, Any], Tensor]:
    """The plain mean: (average of n values, new value, n) -> the average of n + 1 values."""

    @no_grad()
    def swa_update(averaged_param: Tensor, current_param: Tensor, num_averaged: Any) -> Tensor:
        return averaged_param + (current_param - averaged_param) / (num_averaged + 1)

    return swa_update


def get_ema_multi_avg_fn(decay: float = 0.999) -> Callable[[Params, Params, Any], None]:
    """:func:`get_ema_avg_fn` for lists of tensors, in place in the first."""
    return _for_lists(get_ema_avg_fn(decay))


def get_swa_multi_avg_fn() -> Callable[[Params, Params, Any], None]:
    """:func:`get_swa_avg_fn` for lists of tensors, in place in the first."""
    return _for_lists(get_swa_avg_fn())


def _for_lists(average: Callable[[Tensor, Tensor, Any], Tensor]) -> Callable[[Params, Params, Any], None]:
    @no_grad()
    def update(averaged_params: Params, current_params: Params, num_averaged: Any) -> None:
        for mean, new in zip(averaged_params, current_params, strict=True):
            mean.copy_(average(mean, new, num_averaged))

    return update


class AveragedModel(Module):
    """A copy of ``model`` whose parameters are an average of those that :meth:`update_parameters` is given.

    ``device``: where the copy lives (default: where the model does). ``avg_fn(average, new, count)`` returns the new
    average of one tensor; ``multi_avg_fn(averages, news, count)`` changes lists of them in place; without either it is
    the plain mean. ``use_buffers``: average buffers too, rather than copy them. The buffer ``n_averaged`` counts.
    Raises AssertionError for both functions."""

    n_averaged: Tensor

    def __init__(
        self,
        model: Module,
        device: Any = None,
        avg_fn: Callable[[Tensor, Tensor, Any], Tensor] | None = None,
        multi_avg_fn: Callable[[Params, Params, Any], None] | None = None,
        use_buffers: bool = False,
    ) -> None:
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise AssertionError("AveragedModel: avg_fn and multi_avg_fn do the same thing; give one of them")
        self.module = deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", creation.tensor(0, dtype=dtypes.int64, device=device))
        self.avg_fn = avg_fn
        self.multi_avg_fn = multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The averaged model's result."""
        return self.module(*args, **kwargs)

    @no_grad()
    def update_parameters(self, model: Module) -> None:
        """Take the present parameters of ``model`` into the average; the first time they are the average."""
        means, news = self._averaged(self.module), self._averaged(model)
        pairs = [(mean.detach(), new.detach().to(mean.device)) for mean, new in zip(means, news, strict=True)]
        if int(self.n_averaged) == 0:
            for mean, new in pairs:
                mean.copy_(new)
        elif self.avg_fn is None:
            update = self.multi_avg_fn or get_swa_multi_avg_fn()
            groups: dict[Any, list[tuple[Tensor, Tensor]]] = {}
            for mean, new in pairs:
                groups.setdefault((mean.device, mean.dtype), []).append((mean, new))
            for (device, _), group in groups.items():
                update([mean for mean, _ in group], [new for _, new in group], self.n_averaged.to(device))
        else:
            for mean, new in pairs:
                mean.copy_(self.avg_fn(mean, new, self.n_averaged.to(mean.device)))
        if not self.use_buffers:
            for kept, new in zip(self.module.buffers(), model.buffers(), strict=True):
                kept.detach().copy_(new.detach().to(kept.device))
        self.n_averaged += 1

    def _averaged(self, model: Module) -> Iterable[Tensor]:
        return chain(model.parameters(), model.buffers()) if self.use_buffers else model.parameters()


@no_grad()
def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Compute the running statistics of the batch norms in ``model`` anew, as plain means over one pass of ``loader``
    (whose batches are inputs, or lists that begin with the input), moved to ``device``."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    was_training = model.training
    model.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean
    for batch in loader:
        x = batch[0] if isinstance(batch, (list, tuple)) else batch
        model(x if device is None else x.to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(was_training)


class SWALR(LRScheduler):
    """From the current rate to ``swa_lr`` (one, or one per group) within ``anneal_epochs`` epochs, along half a cosine
    or ("linear") a line, and there it stays. Raises ValueError."""

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: Any,
        anneal_epochs: int = 10,
        anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ) -> None:
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"SWALR: anneal_strategy {anneal_strategy!r} is unknown; use 'cos' or 'linear'")
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ValueError(f"SWALR: anneal_epochs must be an int of at least 0, got {anneal_epochs!r}")
        groups = optimizer.param_groups
        rates = list(swa_lr) if isinstance(swa_lr, (list, tuple)) else [swa_lr] * len(groups)
        if len(rates) != len(groups):
            raise ValueError(f"SWALR: swa_lr needs one value per parameter group, {len(groups)}, not {len(rates)}")
        for group, rate in zip(groups, rates, strict=True):
            group["swa_lr"] = rate
        self.anneal_epochs = anneal_epochs
        self._anneal_strategy = anneal_strategy
        super().__init__(optimizer, last_epoch)

    def _share(self, step: int) -> float:
        """How much of swa_lr is in the rate after ``step`` steps."""
        t = max(0.0, min(1.0, step / max(1, self.anneal_epochs)))
        return t if self._anneal_strategy == "linear" else (1 - math.cos(math.pi * t)) / 2

    def get_lr(self) -> list[Any]:
        # The rate that the last step mixed with swa_lr is worked out of the current one, so that other schedules may
        # go on changing it.
        step = self._step_count - 1
        if self.anneal_epochs == 0:
            step = max(1, step)
        before, now = self._share(step - 1), self._share(step)
        rates = []
        for group, lr in zip(self.optimizer.param_groups, self._rates(), strict=True):
            target = group["swa_lr"]
            start = target if before == 1 else (lr - before * target) / (1 - before)
            rates.append(target * now + start * (1 - now))
        return rates
