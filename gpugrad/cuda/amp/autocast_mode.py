"""The old name of ``autocast("cuda")``."""

from __future__ import annotations

import warnings
from typing import Any

from gpugrad import dtypes
from gpugrad.amp import autocast_mode as _new


class autocast(_new.autocast):
    """:class:`gpugrad.amp.autocast` of CUDA, under its old name. Warns (FutureWarning)."""

    def __init__(self, enabled: bool = True, dtype: Any = dtypes.float16, cache_enabled: bool = True) -> None:
        warnings.warn(
            'cuda.amp.autocast(...) is the old name of amp.autocast("cuda", ...)', FutureWarning, stacklevel=2
        )
        super().__init__("cuda", dtype, enabled, cache_enabled)


def custom_fwd(fwd: Any = None, *, cast_inputs: Any = None) -> Any:
    """:func:`gpugrad.amp.custom_fwd` of CUDA, under its old name. Warns (FutureWarning)."""
    warnings.warn("cuda.amp.custom_fwd is the old name of amp.custom_fwd", FutureWarning, stacklevel=2)
    return _new.custom_fwd(fwd, device_type="cuda", cast_inputs=cast_inputs)


def custom_bwd(bwd: Any) -> Any:
    """:func:`gpugrad.amp.custom_bwd` of CUDA, under its old name. Warns (FutureWarning)."""
    warnings.warn("cuda.amp.custom_bwd is the old name of amp.custom_bwd", FutureWarning, stacklevel=2)
    return _new.custom_bwd(bwd, device_type="cuda")
