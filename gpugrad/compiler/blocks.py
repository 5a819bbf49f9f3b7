"""Programs on the CPU where there is no C compiler: groups in blocks that fit the cache, by NumPy."""

from __future__ import annotations

from typing import Any


def prepare(lowering: Any) -> list[Any]:
    """The actions of a run of ``lowering``."""
    return [action for part in lowering.parts for action in lowering.prepare_part(part)]
