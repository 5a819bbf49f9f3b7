"""A device for tests: NumPy underneath, but its arrays are opaque, it has no float64, and it
enters gpugrad through the same public registration that a third-party backend would use.

Code above the backends that treats an array as an ndarray, or mixes devices, fails here.
"""

from __future__ import annotations

import weakref

import numpy as np

import gpugrad as gg
from gpugrad import layout
from gpugrad.backends.base import Backend, DeviceInfo, StridedArray
from gpugrad.backends.cpu import CpuBackend


class PretendArray(StridedArray):
    """Layout over a 1-d block of bytes; NumPy cannot read it."""

    __slots__ = ()

    def __array__(self, *args, **kwargs):
        raise TypeError("an array of the pretend device was read as a NumPy array")


class PretendBackend(Backend):
    name = "pretend"

    def __init__(self, index: int) -> None:
        self.index = index
        self.cpu = CpuBackend()
        self.bytes = self.peak = 0
        self.watches = {}

    def info(self) -> DeviceInfo:
        return DeviceInfo(name=f"pretend device {self.index}", kind="accelerator", fp64=False)

    def supports(self, dtype) -> bool:
        return dtype != np.float64

    # -- the two directions between PretendArray and ndarray -------------------
    def _open(self, array):
        if not isinstance(array, PretendArray):
            assert isinstance(array, (bool, int, float)), f"a foreign array reached the pretend device: {type(array)}"
            return array
        assert array.buffer[0] is self, "an array of another pretend device"
        if not array.size:  # a view of nothing may start behind its memory
            return np.empty(array.shape, array.dtype)
        view = np.ndarray(array.shape, _storage(array.dtype), array.buffer[1], array.offset, array.strides)
        return view.view(array.dtype)

    def _wrap(self, array):
        array = np.ascontiguousarray(array).reshape(array.shape)
        assert array.dtype != np.float64, "float64 was computed on a device without it"
        raw = array.reshape(-1).view(np.uint8) if array.size else np.empty(0, np.uint8)
        strides = layout.contiguous_strides(array.shape, array.itemsize)
        self._count(raw)
        return PretendArray((self, raw), 0, array.shape, strides, array.dtype, True)

    def empty(self, shape, dtype):
        dtype = np.dtype(dtype)
        array = self.cpu.empty(shape, dtype)
        array.reshape(-1).view(np.uint8)[...] = 0xFF  # NaN in every floating dtype: unwritten elements show
        return self._wrap(array)

    def from_host(self, array):
        assert isinstance(array, np.ndarray)
        return self._wrap(array.copy())

    def to_host(self, array):
        return self._open(array).copy()

    def as_strided(self, array, shape, strides, offset):
        low, high = layout.byte_range(shape, strides, array.itemsize)
        start = array.offset + offset
        assert 0 in shape or (start + low >= 0 and start + high <= array.buffer[1].nbytes), "a view out of bounds"
        return array.view(shape, strides, offset)

    def extent(self, array):
        return array.buffer[1], array.offset, array.buffer[1].nbytes

    def synchronize(self):
        return None

    def _count(self, raw):
        """Memory that is allocated until ``raw``, which all views of an array hold, is gone."""
        nbytes = raw.nbytes
        self.bytes += nbytes
        self.peak = max(self.peak, self.bytes)

        def forget(watch):
            del self.watches[id(watch)]
            self.bytes -= nbytes

        watch = weakref.ref(raw, forget)
        self.watches[id(watch)] = watch

    def memory_stats(self):
        return {"allocated": self.bytes, "peak": self.peak, "reserved": self.bytes}

    def reset_peak_memory_stats(self):
        self.peak = self.bytes

    def map(self, kernel, inputs, compute, result, out=None):
        if out is None:
            return self._wrap(self.cpu.map(kernel, [self._open(x) for x in inputs], compute, result))
        self.cpu.map(kernel, [self._open(x) for x in inputs], compute, result, self._open(out))
        return out

    def copy(self, array, dtype=None, out=None):
        if out is None:
            return self._wrap(self.cpu.copy(self._open(array), dtype))
        self.cpu.copy(self._open(array), out=self._open(out))
        return out

    def fill(self, out, value):
        self.cpu.fill(self._open(out), value)

    def scatter(self, out, index, source, axis, mode, op):
        self.cpu.scatter(self._open(out), self._open(index), self._open(source), axis, mode, op)


def _storage(dtype):
    return f"V{dtype.itemsize}" if dtype.name == "bfloat16" else dtype


def _lend(name):
    """A method that opens its array arguments, lets the CPU compute, and wraps the result."""

    def method(self, *args, **kwargs):
        value = getattr(self.cpu, name)(*[self._open(a) if isinstance(a, PretendArray) else a for a in args], **kwargs)
        return tuple(self._wrap(v) for v in value) if isinstance(value, tuple) else self._wrap(value)

    method.__name__ = name
    return method


for _name in "arange reduce arg_reduce scan sort matmul take gather random fold max_pool max_pool_grad".split():
    setattr(PretendBackend, _name, _lend(_name))
PretendBackend.__abstractmethods__ = frozenset()


def register() -> None:
    """Through the public door."""
    gg.register_backend("pretend", PretendBackend)
