"""The base of learning-rate schedules."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from gpugrad.optim.optimizer import Optimizer
from gpugrad.tensor import Tensor


def plain(lr: Any) -> Any:
    """A learning rate as a number of its own (tensors change in place)."""
    return lr.item() if isinstance(lr, Tensor) else lr


def set_lr(group: dict[str, Any], lr: Any) -> None:
    """Set a group's rate: in place where it is a tensor, so that recorded steps see it."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(plain(lr))
    else:
        group["lr"] = plain(lr)


class LRScheduler:
    """Gives every group of ``optimizer`` a new learning rate at each :meth:`step`, usually once an
    epoch. Subclasses define ``get_lr()``, the new rates from the current ones, and where there is one
    ``_get_closed_form_lr()``, the rates at ``last_epoch`` from ``base_lrs`` alone.

    ``last_epoch``: -1 to begin; to resume, the epoch reached so far (groups must then hold
    "initial_lr", else KeyError). Raises TypeError for anything but an Optimizer."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(self).__name__}: expected an Optimizer, got {type(optimizer).__name__}")
        self.optimizer = optimizer
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", plain(group["lr"]))
            elif "initial_lr" not in group:
                raise KeyError(
                    f"{type(self).__name__}: last_epoch={last_epoch} resumes a schedule, which needs 'initial_lr' in "
                    f"param_groups[{i}]; load the optimizer's state first"
                )
        self.base_lrs: list[Any] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._step_count = 0
        self._last_lr: list[Any] = []
        self._initial_step()

    def _initial_step(self) -> None:
        self._step_count = 0
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    def get_lr(self) -> list[Any]:
        """The rates to set at ``last_epoch``, one per group."""
        raise NotImplementedError(f"{type(self).__name__} must define get_lr()")

    #: whether get_lr is called by step() just now; schedules that users wrote for PyTorch look at it
    _get_lr_called_within_step = False
    #: whether this step is the one that begins a schedule: one that goes on from an epoch leaves the rates as they are
    _is_initial = False

    _get_closed_form_lr: Callable[[], list[Any]] | None = None

    def get_last_lr(self) -> list[Any]:
        """The rates set last, one per group."""
        return self._last_lr

    def step(self, epoch: int | None = None) -> None:
        """Go to the next epoch (or to ``epoch``) and set the rates."""
        if self._step_count == 1 and self.optimizer._step_calls == 0:
            warnings.warn(
                f"{type(self).__name__}.step() ran although the optimizer has made no step yet, so the first rate "
                "is never used; call optimizer.step() first",
                stacklevel=2,
            )
        self._step_count += 1
        self._update_lr(epoch)

    def _update_lr(self, epoch: int | None = None) -> None:
        self._get_lr_called_within_step = True
        try:
            if epoch is None:
                self.last_epoch += 1
                rates = self.get_lr()
            else:
                self.last_epoch = epoch
                rates = self.get_lr() if self._get_closed_form_lr is None else self._get_closed_form_lr()
        finally:
            self._get_lr_called_within_step = False
        for group, lr in zip(self.optimizer.param_groups, rates, strict=True):
            set_lr(group, lr)
        self._last_lr = self._rates()

    def _rates(self) -> list[Any]:
        """The groups' current rates as numbers."""
        return [plain(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """All that changes as the schedule goes on, the optimizer excepted."""
        return {k: v for k, v in self.__dict__.items() if k != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what :meth:`state_dict` gave."""
        self.__dict__.update(state_dict)


_LRScheduler = LRScheduler  # the name of PyTorch before 2.0, which much code still derives from
