"""Utilities around training."""

import importlib
from typing import Any

from gpugrad.utils import data, dlpack

__all__ = ["checkpoint", "data", "dlpack"]


def __getattr__(name: str) -> Any:
    if name == "checkpoint":
        return importlib.import_module("gpugrad.utils.checkpoint")
    raise AttributeError(f"gpugrad.utils has no {name}")
