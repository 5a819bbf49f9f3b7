"""The old name of ``GradScaler("cpu")``."""

from __future__ import annotations

import warnings

from gpugrad.amp import grad_scaler as _new


class GradScaler(_new.GradScaler):
    """:class:`gpugrad.amp.GradScaler` of the CPU, under its old name. Warns (FutureWarning)."""

    def __init__(
        self,
        init_scale: float = 65536.0,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        warnings.warn(
            'cpu.amp.GradScaler(...) is the old name of amp.GradScaler("cpu", ...)', FutureWarning, stacklevel=2
        )
        super().__init__("cpu", init_scale, growth_factor, backoff_factor, growth_interval, enabled)
