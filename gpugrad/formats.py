"""Memory formats and layouts: names of PyTorch's that are accepted, of which only one exists here."""

from __future__ import annotations

import enum
from typing import Any


class memory_format(enum.Enum):
    """Accepted where PyTorch takes one. Tensors made here are always C-contiguous in the order of
    their dimensions: ``channels_last`` changes no value and no stride."""

    contiguous_format = 0
    preserve_format = 1
    channels_last = 2
    channels_last_3d = 3

    def __repr__(self) -> str:
        return f"gpugrad.{self.name}"

    __str__ = __repr__


class Layout(enum.Enum):
    """How elements are stored: ``strided``, the only way there is here."""

    strided = 0

    def __repr__(self) -> str:
        return f"gpugrad.{self.name}"

    __str__ = __repr__


strided = Layout.strided


def names() -> dict[str, Any]:
    """What belongs into the namespace of the package."""
    return {"memory_format": memory_format, "strided": strided} | {m.name: m for m in memory_format}
