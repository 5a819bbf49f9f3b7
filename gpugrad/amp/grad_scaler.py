"""``GradScaler``: multiplies the loss, so that small gradients do not vanish in float16."""

from __future__ import annotations

import enum
import warnings
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from gpugrad import dtypes
from gpugrad.autograd import no_grad
from gpugrad.devices import Device, is_available, known
from gpugrad.ops import creation
from gpugrad.ops import elementwise as e
from gpugrad.ops.joining import stack
from gpugrad.ops.reductions import all as all_
from gpugrad.tensor import Tensor

__all__ = ["GradScaler", "OptState"]


class OptState(enum.Enum):
    """How far an optimizer is since the last ``update()``."""

    READY = 0
    UNSCALED = 1
    STEPPED = 2


class _Progress:
    """Of one optimizer since the last ``update()``: its stage, and for each device a 0-d bool tensor that says whether
    all gradients were finite."""

    def __init__(self) -> None:
        self.stage = OptState.READY
        self.finite: dict[Device, Tensor] = {}
        self.found: bool | None = None

    def overflowed(self) -> bool:
        """Whether some gradient was not finite: reads one flag per device, once."""
        if self.found is None:
            self.found = not all(bool(flag) for flag in self.finite.values())
        return self.found


class GradScaler:
    """Scales the loss before ``backward`` and the gradients back before the step; a step whose gradients are not
    finite is left out and the scale made smaller (Micikevicius et al., "Mixed precision training", 2018)::

        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    The scale begins at ``init_scale``, is multiplied by ``growth_factor`` after ``growth_interval`` updates in a row
    without overflow and by ``backoff_factor`` after one with. Not ``enabled``, or where there is no ``device``, it
    does nothing but call the optimizer's step. Raises AssertionError for factors that make no sense."""

    def __init__(
        self,
        device: str = "cuda",
        init_scale: float = 65536.0,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        self._device = device
        kind = str(device).partition(":")[0]
        self._enabled = bool(enabled)
        if self._enabled and not is_available(kind if kind in known() else Device(device).type):
            warnings.warn(f"GradScaler: there is no {device} device here, so it does nothing", stacklevel=2)
            self._enabled = False
        if not self._enabled:
            return
        _check_factors(growth_factor, backoff_factor)
        self._scale = float(np.float32(init_scale))
        self._growth_factor = growth_factor
        self._backoff_factor = backoff_factor
        self._growth_interval = growth_interval
        self._growth_tracker = 0
        self._scaled = False  # whether scale() was called
        self._factors: dict[Device, tuple[float, Tensor]] = {}
        self._progress: defaultdict[int, _Progress] = defaultdict(_Progress)

    # -- a step ---------------------------------------------------------------------------------
    def scale(self, outputs: Any) -> Any:
        """A tensor, or a list or tuple of them, times the scale."""
        if not self._enabled:
            return outputs
        self._scaled = True
        if isinstance(outputs, Tensor):
            return e.mul(outputs, self._factor(outputs.device))
        if isinstance(outputs, Iterable):
            scaled = [self.scale(x) for x in outputs]
            return type(outputs)(scaled) if isinstance(outputs, (list, tuple)) else iter(scaled)
        raise ValueError(f"GradScaler.scale: expected a tensor or an iterable of them, not {type(outputs).__name__}")

    def _factor(self, device: Device) -> Tensor:
        """The scale as a float32 tensor: a float16 loss times it is float32, and does not overflow."""
        found = self._factors.get(device)
        if found is None or found[0] != self._scale:
            made = creation.full((), self._scale, dtype=dtypes.float32, device=device)
            found = self._factors[device] = (self._scale, made)
        return found[1]

    def unscale_(self, optimizer: Any) -> None:
        """Divide the gradients of an optimizer's parameters by the scale, for clipping them before :meth:`step`, which
        else does it. Raises RuntimeError if that was done since the last :meth:`update`, ValueError for float16
        gradients, AssertionError before the first :meth:`scale`."""
        if not self._enabled:
            return
        self._check_scaled("unscale_")
        progress = self._progress[id(optimizer)]
        if progress.stage is OptState.UNSCALED:
            raise RuntimeError("unscale_: it was called on this optimizer already since the last update()")
        if progress.stage is OptState.STEPPED:
            raise RuntimeError("unscale_: it comes before step() of this optimizer, or after update()")
        progress.finite = self._unscale(optimizer, float(np.float32(1.0 / self._scale)))
        progress.stage = OptState.UNSCALED

    @no_grad()
    def _unscale(self, optimizer: Any, inverse: float) -> dict[Device, Tensor]:
        """Multiply the gradients by ``inverse``; for each device whether all of them were finite."""
        flags: defaultdict[Device, list[Tensor]] = defaultdict(list)
        for group in optimizer.param_groups:
            for p in group["params"]:
                gradient = p.grad
                if gradient is None:
                    continue
                if gradient.dtype is dtypes.float16:
                    raise ValueError(
                        f"unscale_: a gradient of shape {tuple(gradient.shape)} is float16, where it may be gone "
                        "already; keep parameters in float32, as autocast wants them"
                    )
                flags[gradient.device].append(all_(e.isfinite(gradient)))
                gradient.mul_(inverse)
        return {device: all_(stack(found)) for device, found in flags.items()}

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """``optimizer.step(*args, **kwargs)`` with the gradients scaled back, if all of them are finite; else None.
        Raises RuntimeError for a second step without :meth:`update`, and for a closure."""
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs:
            raise RuntimeError("GradScaler.step: a closure, which runs backward again, is not supported; step without")
        self._check_scaled("step")
        progress = self._progress[id(optimizer)]
        if progress.stage is OptState.STEPPED:
            raise RuntimeError("GradScaler.step: it was called for this optimizer already since the last update()")
        if progress.stage is OptState.READY:
            self.unscale_(optimizer)
        if not progress.finite:
            raise AssertionError(
                "GradScaler.step: no parameter of this optimizer has a gradient, so nothing could be checked; call "
                "backward() first"
            )
        result = None if progress.overflowed() else optimizer.step(*args, **kwargs)
        progress.stage = OptState.STEPPED
        return result

    def update(self, new_scale: Any = None) -> None:
        """Adapt the scale to what the steps met, or set it to ``new_scale`` (a number, a tensor of one element).
        Raises AssertionError where no gradient was checked since the last update."""
        if not self._enabled:
            return
        self._check_scaled("update")
        if new_scale is not None:
            self._scale = float(np.float32(float(new_scale)))
        else:
            checked = [p for p in self._progress.values() if p.finite]
            if not checked:
                raise AssertionError("GradScaler.update: no gradients were checked since the last update; step() first")
            overflowed = [p.overflowed() for p in checked]  # asks each
            self._adapt(any(overflowed))
        self._progress.clear()

    def _adapt(self, overflowed: bool) -> None:
        if overflowed:
            self._scale = float(np.float32(self._scale * self._backoff_factor))
            self._growth_tracker = 0
            return
        self._growth_tracker += 1
        if self._growth_tracker == self._growth_interval:
            grown = self._scale * self._growth_factor
            if grown <= float(np.finfo(np.float32).max):
                self._scale = float(np.float32(grown))
            self._growth_tracker = 0

    def _check_scaled(self, what: str) -> None:
        if not self._scaled:
            raise AssertionError(f"GradScaler.{what}: scale() has not been called yet; scale the loss before backward")

    # -- settings -----------------------------------------------------------------------------------
    def is_enabled(self) -> bool:
        """Whether it does anything."""
        return self._enabled

    def get_scale(self) -> float:
        """The scale as it is now; 1.0 if not enabled."""
        return self._scale if self._enabled else 1.0

    def get_growth_factor(self) -> float:
        """What the scale grows by."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Let the scale grow by ``new_factor``."""
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        """What the scale is multiplied by after an overflow."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Let the scale be multiplied by ``new_factor`` after an overflow."""
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        """After how many updates without overflow the scale grows."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Let the scale grow after ``new_interval`` updates without overflow."""
        self._growth_interval = new_interval

    def state_dict(self) -> dict[str, Any]:
        """Scale, settings and count, to be saved after :meth:`update`; empty if not enabled."""
        if not self._enabled:
            return {}
        return {
            "scale": self._scale,
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._growth_tracker,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave. Raises RuntimeError for an empty one."""
        if not self._enabled:
            return
        if not state_dict:
            raise RuntimeError("GradScaler.load_state_dict: the state is empty; a disabled scaler may have saved it")
        self._scale = float(np.float32(state_dict["scale"]))
        self._growth_factor = state_dict["growth_factor"]
        self._backoff_factor = state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]
        self._growth_tracker = state_dict["_growth_tracker"]

    def __getstate__(self) -> dict[str, Any]:
        if self._enabled and self._progress:
            raise AssertionError("GradScaler: it can be pickled only right after update() or before the first step")
        return self.__dict__ | {"_factors": {}} if self._enabled else self.__dict__


def _check_factors(growth: float, backoff: float) -> None:
    if not growth > 1.0:
        raise AssertionError(f"GradScaler: growth_factor must be above 1, got {growth}")
    if not backoff < 1.0:
        raise AssertionError(f"GradScaler: backoff_factor must be below 1, got {backoff}")
