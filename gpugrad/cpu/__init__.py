"""``torch.cpu``'s few functions: the CPU is one device that is always there and never behind."""

from __future__ import annotations

import importlib
from typing import Any

from gpugrad.absent import missing

__all__ = ["current_device", "device_count", "is_available", "is_initialized", "synchronize"]

_missing = missing("cpu")


def is_available() -> bool:
    """True."""
    return True


def is_initialized() -> bool:
    """True."""
    return True


def device_count() -> int:
    """1."""
    return 1


def current_device() -> str:
    """Its name."""
    return "cpu"


def synchronize(device: Any = None) -> None:
    """Nothing to wait for: calls return when their work is done."""


def __getattr__(name: str) -> Any:
    if name == "amp":
        return importlib.import_module("gpugrad.cpu.amp")
    return _missing(name)
