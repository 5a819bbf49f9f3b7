"""One file per device: ``base`` is the contract, ``cpu`` its specification."""

import importlib
import sys
from typing import Any

from gpugrad.backends.switches import cudnn, mkldnn, mps

__all__ = ["cudnn", "mkldnn", "mps"]

sys.modules.update((s.__name__, s) for s in (cudnn, mkldnn, mps))


def __getattr__(name: str) -> Any:
    """The module of a backend, imported when named."""
    if name in ("cpu", "cuda", "opencl"):
        return importlib.import_module(f"gpugrad.backends.{name}")
    raise AttributeError(f"gpugrad.backends has no {name}")
