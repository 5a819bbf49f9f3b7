"""Memory that nobody has written yet is NaN while the suite runs: an element that a kernel leaves out then fails its
test instead of holding, by luck, what was there before.

Off with ``GPUGRAD_TEST_POISON=0``. The device of ``tests/pretend.py`` does the same by itself.
"""

from __future__ import annotations

import os

import numpy as np

from gpugrad.backends import host_memory, opencl

#: A word that is NaN in every floating dtype: as float32 and twice as a double, and each half of it as float16 and
#: bfloat16. As an integer it is a negative number that no test has; as an index it is out of range.
WORD = np.uint32(0xFFF6FFA9)


def fill_buffer(backend, buffer, nbytes: int) -> None:
    """Fill OpenCL memory."""
    words = 4 * (nbytes // 4)
    cl, queue = backend._cl, backend._queue
    if words:
        cl.enqueue_fill_buffer(queue, buffer, WORD, 0, words)
    if nbytes > words:
        cl.enqueue_fill_buffer(queue, buffer, np.uint8(0xFF), words, nbytes - words)


def fill_array(array: np.ndarray) -> np.ndarray:
    """Fill a fresh ndarray and return it. An array of objects stays as it is."""
    if array.size and array.flags.c_contiguous and not array.dtype.hasobject:
        raw = array.reshape(-1).view(np.uint8)
        words = 4 * (raw.size // 4)
        raw[:words].view(WORD.dtype)[...] = WORD
        raw[words:] = 0xFF
    return array


def _poisoned(empty):
    def poisoned(*args, **kwargs):
        return fill_array(empty(*args, **kwargs))

    poisoned.__name__ = empty.__name__
    poisoned.__wrapped__ = empty
    return poisoned


def configure() -> None:
    """From now on, for the CPU backend and for OpenCL."""
    if os.environ.get("GPUGRAD_TEST_POISON", "1") == "0" or getattr(opencl.OpenCLBackend, "poisoned", False):
        return
    np.empty, np.empty_like = _poisoned(np.empty), _poisoned(np.empty_like)
    allocate = opencl.OpenCLBackend._allocate

    def poisoned(self, nbytes):
        buffer = allocate(self, nbytes)
        fill_buffer(self, buffer, nbytes)
        return buffer

    opencl.OpenCLBackend._allocate = poisoned
    opencl.OpenCLBackend.poisoned = True
    pool_empty = host_memory.HostPool.empty
    host_memory.HostPool.empty = lambda self, shape, dtype: fill_array(pool_empty(self, shape, dtype))
