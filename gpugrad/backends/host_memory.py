"""Memory for large arrays of the CPU backend, kept and used again; and how much of it is in use.

The C library returns large blocks to the system when they are freed, and the system hands out zeroed pages one
fault at a time when they are asked for again: for an elementwise operation on a large array that costs more than
its arithmetic. Here a freed block waits for the next array of about its size.
"""

from __future__ import annotations

import functools
import math
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpugrad.errors import OutOfMemoryError

#: smaller arrays come from NumPy's own allocator, which keeps such blocks itself
SMALLEST = 1 << 20
#: arrays of so many bytes are counted as allocated; counting takes 0.6 us, a twentieth of an addition of this size
COUNTED = 1 << 16
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


class _Counted(weakref.ref[np.ndarray]):
    """Watches an array that has its memory from NumPy; ``nbytes`` stop being counted when it goes."""

    __slots__ = ("key", "nbytes")

    key: int
    nbytes: int


class HostPool:
    """Blocks that were freed, by size, and what is in use. ``limit``: the most bytes to keep.

    ``held``: bytes that wait. ``allocated``: bytes in use, of the pool's blocks and of NumPy's arrays of ``COUNTED``
    bytes and more that :meth:`count` was told of; ``peak``: the most there were."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = _default_limit() if limit is None else limit
        self.held = 0
        self.allocated = 0
        self.peak = 0
        self._counted: dict[int, _Counted] = {}
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
            return self.count(self._fresh(shape, dtype))
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
        self._more(size)
        return np.asarray(_Block(memory, self, shape, dtype.str))

    def count(self, array: np.ndarray) -> np.ndarray:
        """``array``, whose memory is counted as allocated until its last view is gone. Small ones, the pool's own,
        those counted before and those of other libraries stay as they are."""
        root = array
        while type(root.base) is np.ndarray:
            root = root.base
        if root.nbytes < COUNTED or root.base is not None:
            return array
        with self._lock:
            known = self._counted.get(id(root))
            if known is None or known() is not root:
                watch = _Counted(root, self._forget)
                watch.key, watch.nbytes = id(root), root.nbytes
                self._counted[watch.key] = watch
                self._more(watch.nbytes)
        return array

    def _forget(self, watch: _Counted) -> None:
        with self._lock:
            if self._counted.get(watch.key) is watch:
                del self._counted[watch.key]
            self.allocated -= watch.nbytes

    def _more(self, nbytes: int) -> None:
        with self._lock:
            self.allocated += nbytes
            if self.allocated > self.peak:
                self.peak = self.allocated

    def out_of_memory(
        self, error: Exception, shape: Sequence[int] | None = None, dtype: Any = None
    ) -> OutOfMemoryError:
        """What to raise when memory is missing still after the pool was emptied: of ``shape`` and ``dtype``, else of
        what NumPy's ``error`` says that it asked for."""
        if shape is None or dtype is None:
            shape, dtype = getattr(error, "shape", None), getattr(error, "dtype", None)
        asked = "memory"
        if shape is not None and dtype is not None:
            size = math.prod(shape) * np.dtype(dtype).itemsize
            asked = f"{size:,} bytes for shape {tuple(shape)} {np.dtype(dtype)}"
        free, total = available()
        return OutOfMemoryError(
            f"cpu: cannot allocate {asked}: {free:,} of {total:,} bytes are free, and the pool, which was emptied "
            f"before trying again, holds {self.held:,}; use smaller batches, or free what is not needed"
        )

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
            self.allocated -= size
            if self.held + size <= self.limit:
                self.held += size
                self._free.setdefault(size, []).append(memory)

    def clear(self) -> None:
        """Give everything held back to the system."""
        with self._lock:
            self._free.clear()
            self.held = 0


def retrying(method: Callable[..., Any], out: int | None = None) -> Callable[..., Any]:
    """``method`` of the CPU backend, called once more if memory ran out, after the pool has been emptied. Raises
    OutOfMemoryError. ``out``: which argument is an array to write to, of which a part may have been written before
    memory ran out; where it is given, the call is not done again. Large results are counted as allocated."""

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            result = method(self, *args, **kwargs)
        except MemoryError as error:
            self._pool.clear()
            if kwargs.get("out") is not None or (out is not None and len(args) > out and args[out] is not None):
                raise self._pool.out_of_memory(error) from error
            try:
                result = method(self, *args, **kwargs)
            except MemoryError as again:
                raise self._pool.out_of_memory(again) from again
        if type(result) is np.ndarray:
            return self._pool.count(result) if result.nbytes >= COUNTED else result
        if type(result) is tuple:
            for part in result:
                if type(part) is np.ndarray:
                    self._pool.count(part)
        return result

    return call


def available() -> tuple[int, int]:
    """Bytes that this process may still get, and in all: what the system has, or the limit set for the process."""
    free = total = 0
    try:
        with open("/proc/meminfo") as file:
            found = dict(line.split(":", 1) for line in file)
        free, total = (int(found[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal"))
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY and limit < total:
            with open("/proc/self/statm") as file:
                used = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            free, total = min(free, max(limit - used, 0)), limit
    except (ImportError, OSError, KeyError, ValueError):  # not on every system
        pass
    return free, total


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
