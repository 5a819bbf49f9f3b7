"""Kernels of the OpenCL and CUDA backends that compiled programs run on the CPU: convolution, max pooling.

What these kernels do on CPU-type OpenCL devices they do here, built by the C compiler. :class:`HostKernels` stands on
the half that the kernel backends share, with arrays of NumPy for buffers, the CPU backend's threads for a queue, and
that backend for what is not worth a kernel.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from gpugrad.backends.base import DeviceInfo, Scalar, StridedArray
from gpugrad.backends.kernel_core import Plan
from gpugrad.backends.kernels import KernelBackend
from gpugrad.compiler import host_build
from gpugrad.compiler.program import Call, View

#: parts that a launch is shared out in
PARTS = 16
_CONVOLUTIONS = {"convolve": 1, "convolve_input_grad": 1, "convolve_weight_grad": 2}  # which argument knows the kernel
_POOLS = ("max_pool", "max_pool_grad")


def takes(step: Call) -> bool:
    """Whether a call is one for :class:`HostKernels`. Convolution with a kernel of one element is a bare product."""
    if step.method in _POOLS:
        return True
    at = _CONVOLUTIONS.get(step.method)
    if at is None:
        return False
    given = step.args[at]
    kernel = given.shape[2:] if isinstance(given, View) else given
    return any(k > 1 for k in kernel)


class _Memory:
    """A buffer: an array of NumPy, whose first element is at ``address``."""

    __slots__ = ("array", "address", "size")

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.address: int = array.__array_interface__["data"][0]
        self.size = array.nbytes


def _wrapped(array: np.ndarray) -> StridedArray:
    return StridedArray(_Memory(array), 0, array.shape, array.strides, array.dtype)


class HostKernels(KernelBackend):
    """Methods of the contract over arrays of NumPy; ``cpu`` is the backend that the rest is left to."""

    name = "cpu"

    def __init__(self, cpu: Any) -> None:
        super().__init__(0, "host", cpu_shapes=True, fp64=True)
        self.vector_bytes = host_build.vector_bytes()
        self._cpu = cpu

    def call(self, method: str) -> Callable[..., Any]:
        """``method``, of and with arrays of NumPy."""
        return partial(self._call, getattr(self, method))

    def _call(self, method: Callable[..., Any], *args: Any) -> Any:
        result = method(*[_wrapped(x) if isinstance(x, np.ndarray) else x for x in args])
        return tuple(map(self._dense_array, result)) if isinstance(result, tuple) else self._dense_array(result)

    def _dense_array(self, x: StridedArray) -> np.ndarray:
        """C-contiguous, as the CPU backend's results are."""
        return self._array(self._dense(x))

    def _array(self, x: StridedArray) -> np.ndarray:
        array: np.ndarray = x.buffer.array
        if x.offset or array.shape != x.shape or array.strides != x.strides:
            array = self._cpu.as_strided(array, x.shape, x.strides, x.offset)
        return array

    # -- left to the CPU backend ------------------------------------------------------------------------
    def empty(self, shape: Sequence[int], dtype: np.dtype) -> StridedArray:
        return _wrapped(self._cpu.empty(tuple(shape), np.dtype(dtype)))

    def _result(self, plan: Plan) -> StridedArray:
        return self.empty(plan.shape, plan.dtype)

    def fill(self, out: StridedArray, value: Scalar) -> None:
        self._cpu.fill(self._array(out), value)

    def copy(self, array: StridedArray, dtype: np.dtype | None = None, out: StridedArray | None = None) -> StridedArray:
        if out is not None:
            self._cpu.copy(self._array(array), dtype, self._array(out))
            return out
        return _wrapped(self._cpu.copy(self._array(array), dtype))

    def reduce(self, kind: str, array: StridedArray, axes: Sequence[int], dtype: np.dtype) -> StridedArray:
        return _wrapped(self._cpu.reduce(kind, self._array(array), axes, dtype))

    def matmul(self, a: StridedArray, b: StridedArray) -> StridedArray:
        return _wrapped(self._cpu.matmul(self._array(a), self._array(b)))

    def info(self) -> DeviceInfo:
        return self._cpu.info()

    def memory_stats(self) -> dict[str, int]:
        return self._cpu.memory_stats()

    # -- what an API provides ----------------------------------------------------------------------------
    def _allocate(self, nbytes: int) -> _Memory:
        return _Memory(self._cpu.empty((nbytes,), np.dtype(np.uint8)))

    def _write(self, buffer: _Memory, data: np.ndarray) -> None:
        ctypes.memmove(buffer.address, data.ctypes.data, data.nbytes)

    def _read(self, buffer: _Memory, offset: int, data: np.ndarray) -> None:
        ctypes.memmove(data.ctypes.data, buffer.address + offset, data.nbytes)

    def _finish(self) -> None:
        """Launches are done when they return."""

    def _compile(self, source: str, fuse: bool, double: bool) -> ctypes.CDLL:
        # A kernel has one signature wherever the text has several of its name.
        kernels = dict(re.findall(r"^KERNEL void (.+?)\((GLOBAL [^{]*)\) \{", source, re.M))
        wrappers = "".join(_in_rows(name, parameters) for name, parameters in kernels.items())
        return host_build.load(source + wrappers, ("-ffp-contract=fast",) if fuse else ())[0]

    def _get_kernel(self, program: ctypes.CDLL, name: str, local: int) -> tuple[Any, int]:
        function = getattr(program, f"{name}_items")
        function.restype = None
        function.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_longlong, ctypes.c_longlong)
        return function, local

    def _launch(self, kernel: Any, groups: int, *args: Any) -> None:
        function, local = kernel
        *buffers, params = args
        pointers = (ctypes.c_void_p * len(buffers))(*(b.address for b in buffers))
        items = groups * local
        parts = min(items, PARTS)
        self._cpu._workers.share(
            lambda i: function(pointers, params, items * i // parts, items * (i + 1) // parts), parts
        )


def _in_rows(name: str, parameters: str) -> str:
    """C text of a function that runs some of a kernel's items, given a table of its pointers and its parameters."""
    *pointers, params = parameters.split(",")
    passed = [f"({p.rpartition('*')[0]}*)p[{i}]" for i, p in enumerate(pointers)]
    kind = params.split()[0]
    return (
        f"\nKERNEL void CAT({name}, _items)(void *const *p, const {kind} *params, i64 first, i64 last) {{\n"
        f"    for (gg_item = first; gg_item < last; gg_item++) {name}({', '.join(passed)}, *params);\n}}\n"
    )
