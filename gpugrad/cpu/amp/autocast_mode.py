"""The old name of ``autocast("cpu")``."""

from __future__ import annotations

import warnings
from typing import Any

from gpugrad import dtypes
from gpugrad.amp import autocast_mode as _new


class autocast(_new.autocast):
    """:class:`gpugrad.amp.autocast` of the CPU, under its old name. Warns (FutureWarning)."""

    def __init__(self, enabled: bool = True, dtype: Any = dtypes.bfloat16, cache_enabled: bool = True) -> None:
        warnings.warn('cpu.amp.autocast(...) is the old name of amp.autocast("cpu", ...)', FutureWarning, stacklevel=2)
        super().__init__("cpu", dtype, enabled, cache_enabled)
