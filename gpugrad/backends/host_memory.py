"""Memory for large arrays of the CPU backend, kept and used again.

The C library returns large blocks to the system when they are freed, and the system hands out zeroed pages one
fault at a time when they are asked for again: for an elementwise operation on a large array that costs more than
its arithmetic. Here a freed block waits for the next array of about its size.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

#: smaller arrays come from NumPy's own allocator, which keeps such blocks itself
SMALLEST = 1 << 20
_GRANULE = 1 << 16


class _Block:
    """Bytes on loan: an array is made over them, and when the last view of it is gone they go back."""

    __slots__ = ("_memory", "_pool", "__array_interface__")

    def __init__(self, memory: np.ndarray, pool: HostPool, shape: tuple[int, ...], typestr: str) -> None:
        self._memory = memory
        self._pool = pool
        self.__array_interface__ = {
            "shape": shape,
            "typestr": typestr,
            "data": (memory.ctypes.data, False),
            "version": 3,
        }

    def __del__(self) -> None:
        self._pool.take_back(self._memory)


class HostPool:
    """Blocks that were freed, by size. ``limit``: the most bytes to keep."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = _default_limit() if limit is None else limit
        self.held = 0
        self._free: dict[int, list[np.ndarray]] = {}
        # Re-entrant: the collector may free a block, and so come here, while this thread is inside.
        self._lock = threading.RLock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew_lock)

    def empty(self, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
        """An uninitialised C-contiguous array. Raises MemoryError, after what is held was given back."""
        shape = tuple(shape)
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes < SMALLEST:
            return self._fresh(shape, dtype)
        if dtype.isbuiltin != 1:  # bfloat16: the array interface has no name for it
            return self.empty(shape, np.dtype(f"u{dtype.itemsize}")).view(dtype)
        size = _rounded(nbytes)
        with self._lock:
            waiting = self._free.get(size)
            memory = waiting.pop() if waiting else None
            if memory is not None:
                self.held -= size
        if memory is None:
            memory = self._fresh((size,), np.dtype(np.uint8))
        return np.asarray(_Block(memory, self, shape, dtype.str))

    def _fresh(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        try:
            return np.empty(shape, dtype)
        except MemoryError:
            self.clear()
            return np.empty(shape, dtype)

    def _renew_lock(self) -> None:
        """In a forked child: the lock may have been held by a thread that is not there."""
        self._lock = threading.RLock()

    def take_back(self, memory: np.ndarray) -> None:
        """Keep a block for the next array of its size, if there is room for it."""
        size = memory.size
        with self._lock:
            if self.held + size <= self.limit:
                self.held += size
                self._free.setdefault(size, []).append(memory)

    def clear(self) -> None:
        """Give everything held back to the system."""
        with self._lock:
            self._free.clear()
            self.held = 0


def _rounded(nbytes: int) -> int:
    """Block size for ``nbytes``: in steps of an eighth of the power of two below, so that arrays of nearly
    one size share blocks and at most an eighth is wasted."""
    step = max(_GRANULE, 1 << (nbytes.bit_length() - 4))
    return -(-nbytes // step) * step


def _default_limit() -> int:
    """A quarter of the machine's memory, or what GPUGRAD_HOST_POOL says in bytes."""
    given = os.environ.get("GPUGRAD_HOST_POOL", "")
    if given.isdigit():
        return int(given)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    except (AttributeError, ValueError, OSError):
        return 1 << 30


def is_pooled(array: np.ndarray) -> Any:
    """Whether the memory of ``array`` comes from a pool."""
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return isinstance(array, _Block)
