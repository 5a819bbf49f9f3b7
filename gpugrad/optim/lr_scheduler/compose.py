"""Several schedules on one optimizer: one after the other, or together."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from gpugrad.optim.lr_scheduler.base import LRScheduler, set_lr
from gpugrad.optim.lr_scheduler.plateau import ReduceLROnPlateau
from gpugrad.optim.optimizer import Optimizer


def _check(schedulers: Sequence[Any], optimizer: Optimizer, name: str) -> None:
    if not schedulers:
        raise ValueError(f"{name}: the list of schedulers is empty")
    for i, s in enumerate(schedulers):
        if s.optimizer is not optimizer:
            raise ValueError(
                f"{name}: scheduler {i}, {type(s).__name__}, drives another optimizer; all must be built on one"
            )


class _Composed(LRScheduler):
    """Saves the schedules it holds along with itself."""

    _schedulers: list[Any]

    def state_dict(self) -> dict[str, Any]:
        """As the base's, with the state of each schedule under "_schedulers"."""
        state = {k: v for k, v in self.__dict__.items() if k not in ("optimizer", "_schedulers")}
        state["_schedulers"] = [s.state_dict() for s in self._schedulers]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what :meth:`state_dict` gave."""
        rest = dict(state_dict)
        for s, saved in zip(self._schedulers, rest.pop("_schedulers"), strict=True):
            s.load_state_dict(saved)
        self.__dict__.update(rest)


def _undo(scheduler: Any) -> None:
    """Take back the step that building ``scheduler`` made."""
    for s in getattr(scheduler, "_schedulers", ()):
        _undo(s)
    if hasattr(scheduler, "last_epoch"):
        scheduler.last_epoch -= 1


class SequentialLR(_Composed):
    """``schedulers`` one after the other; the next takes over at each epoch in ``milestones``. Raises
    ValueError for schedules of another optimizer or of the wrong number."""

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int], last_epoch: int = -1
    ) -> None:
        _check(schedulers, optimizer, "SequentialLR")
        if any(isinstance(s, ReduceLROnPlateau) for s in schedulers):
            raise ValueError("SequentialLR: ReduceLROnPlateau cannot take part, as it needs a metric at each step")
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                f"SequentialLR: {len(schedulers)} schedulers need {len(schedulers) - 1} milestones between them, not "
                f"{len(milestones)}"
            )
        self.optimizer = optimizer
        self._schedulers = list(schedulers)
        self._milestones = list(milestones)
        self.last_epoch = last_epoch + 1
        # Every schedule set a rate when it was built: start again from the first one's.
        for group in optimizer.param_groups:
            set_lr(group, group["initial_lr"])
        for s in self._schedulers:
            _undo(s)
        self._schedulers[0]._initial_step()
        self._last_lr = self._schedulers[0].get_last_lr()

    def step(self) -> None:  # type: ignore[override]
        """Go to the next epoch."""
        self.last_epoch += 1
        i = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[i]
        if i > 0 and self._milestones[i - 1] == self.last_epoch:
            scheduler._update_lr(0)
        else:
            scheduler.step()
        self._last_lr = scheduler.get_last_lr()


class ChainedScheduler(_Composed):
    """All ``schedulers`` at every step; their factors multiply. Raises ValueError."""

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        if not schedulers:
            raise ValueError("ChainedScheduler: the list of schedulers is empty")
        self.optimizer = schedulers[0].optimizer if optimizer is None else optimizer
        _check(schedulers, self.optimizer, "ChainedScheduler")
        if any(isinstance(s, ReduceLROnPlateau) for s in schedulers):
            raise ValueError("ChainedScheduler: ReduceLROnPlateau cannot take part, as it needs a metric at each step")
        self._schedulers = list(schedulers)
        self._last_lr = self._rates()

    def step(self) -> None:  # type: ignore[override]
        """Step every schedule."""
        for s in self._schedulers:
            s.step()
        self._last_lr = self._rates()
