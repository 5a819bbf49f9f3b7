"""Kernels of the OpenCL and CUDA backends on the memory of NumPy, built by the machine's C compiler.

What these kernels do on CPU-type OpenCL devices they do here. :class:`HostKernels` stands on the half that the kernel
backends share, with arrays of NumPy for buffers, the CPU backend's threads for a queue, and that backend for what is
not worth a kernel. The CPU backend's large calls (``cpu_kernels.py``) and compiled programs use it.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from gpugrad.backends import host_build, kernel_source
from gpugrad.backends.base import Array, DeviceInfo, Elementwise, Scalar, StridedArray
from gpugrad.backends.cpu_rows import check_index
from gpugrad.backends.kernel_core import Plan
from gpugrad.backends.kernels import KernelBackend
from gpugrad.backends.update import Update

#: parts that a launch is shared out in
PARTS = 16
#: elements of one item of an optimizer's step: enough that its loop is all that counts
RUN = 4096


#: whose results have the strides of their operands, and not those of C
_AS_THEY_LIE = ("fused_attention", "fused_attention_backward")


class _Items(ctypes.Structure):
    """Of a kernel, those of kernels/host/pool.c."""

    _fields_ = (
        ("run", ctypes.c_void_p),
        ("arguments", ctypes.c_void_p),
        ("first", ctypes.c_int64),
        ("last", ctypes.c_int64),
    )


class _Memory:
    """A buffer: an array of NumPy, whose first element is at ``address``."""

    __slots__ = ("array", "address", "size")

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.address: int = array.__array_interface__["data"][0]
        self.size = array.nbytes


def _wrapped(array: np.ndarray) -> StridedArray:
    return StridedArray(_Memory(array), 0, array.shape, array.strides, array.dtype)


def _outward(x: Any) -> Any:
    """An argument with arrays of this half for those of NumPy, also in lists."""
    if isinstance(x, np.ndarray):
        return _wrapped(x)
    return [_outward(e) for e in x] if type(x) in (list, tuple) else x


class HostKernels(KernelBackend):
    """Methods of the contract over arrays of NumPy; ``cpu`` is the backend that the rest is left to."""

    name = "cpu"
    row_vectors = True
    vector_functions = False
    update_run = RUN

    def __init__(self, cpu: Any) -> None:
        host_build.needed()
        super().__init__(0, "host", cpu_shapes=True, fp64=True)
        self.force_wide = True  # an index that may wrap round is nothing that compilers make vectors of
        self.vector_bytes = host_build.vector_bytes()
        self.shape = self.shape | {"LOCAL_SIZE": 1}  # there are no groups
        self._common = kernel_source.common_defines(self.shape, True)
        self._cpu = cpu
        self._here = threading.local()  # launches that are to be shared out together; kernels that a text has
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        """In a forked child: the lock may have been held by a thread that is not there."""
        self._compile_lock = threading.RLock()

    def call(self, method: str) -> Callable[..., Any]:
        """``method``, of and with arrays of NumPy."""
        return partial(self._call, getattr(self, method))

    def _call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = method(*map(_outward, args), **kwargs)
        inward = self._as_it_lies if method.__name__ in _AS_THEY_LIE else self._inward
        return tuple(map(inward, result)) if isinstance(result, tuple) else inward(result)

    def _inward(self, x: StridedArray | None) -> np.ndarray | None:
        return x if x is None else self._dense_array(x)

    def _as_it_lies(self, x: StridedArray | None) -> np.ndarray | None:
        return x if x is None else self._array(x)

    def _dense_array(self, x: StridedArray) -> np.ndarray:
        """C-contiguous, as the CPU backend's results are."""
        return self._array(self._dense(x))

    def _array(self, x: StridedArray) -> np.ndarray:
        array: np.ndarray = x.buffer.array
        if x.offset or array.shape != x.shape or array.strides != x.strides:
            array = self._cpu.as_strided(array, x.shape, x.strides, x.offset)
        return array

    def fused_cross_entropy(
        self, x: StridedArray, target: StridedArray, weight: StridedArray | None, ignore: int, op: str
    ) -> tuple[StridedArray, StridedArray]:
        # Checked here: what a kernel reports might be raised in another thread.
        index = self._array(target)
        check_index(np.where(index != ignore, index, 0), x.shape[1], op)
        return super().fused_cross_entropy(x, target, weight, ignore, op)

    def fused_update(self, update: Update, columns: Sequence[Sequence[StridedArray]], numbers: Sequence[Any]) -> None:
        # All kernels are built before a tensor changes, and the launches of all tensors are one piece of work.
        launches: list[tuple[Any, ...]] = []
        apart: list[Callable[[], None]] = []
        self._here.launches, self._here.apart = launches, apart
        try:
            super().fused_update(update, columns, numbers)
        finally:
            self._here.launches = None
        self._run(launches)
        for one in apart:
            one()

    def _one_by_one(self, update: Update, arrays: Sequence[StridedArray], numbers: Sequence[Any]) -> None:
        self._here.apart.append(partial(super()._one_by_one, update, arrays, numbers))

    # -- left to the CPU backend ------------------------------------------------------------------------
    def empty(self, shape: Sequence[int], dtype: np.dtype) -> StridedArray:
        return _wrapped(self._cpu.empty(tuple(shape), np.dtype(dtype)))

    def _result(self, plan: Plan) -> StridedArray:
        return self.empty(plan.shape, plan.dtype)

    def map(
        self,
        kernel: Elementwise,
        inputs: Sequence[Array | Scalar],
        compute: np.dtype,
        result: np.dtype,
        out: StridedArray | None = None,
    ) -> StridedArray:
        given = [self._array(x) if isinstance(x, StridedArray) else x for x in inputs]
        target = None if out is None else given[0] if out is inputs[0] else self._array(out)
        value = self._cpu.map(kernel, given, compute, result, target)
        return _wrapped(value) if out is None else out

    map_here = KernelBackend.map  # what the CPU backend leaves to this one

    def fill(self, out: StridedArray, value: Scalar) -> None:
        self._cpu.fill(self._array(out), value)

    def copy(self, array: StridedArray, dtype: np.dtype | None = None, out: StridedArray | None = None) -> StridedArray:
        if out is not None:
            self._cpu.copy(self._array(array), dtype, self._array(out))
            return out
        return _wrapped(self._cpu.copy(self._array(array), dtype))

    reduce_here = KernelBackend.reduce

    def reduce(self, kind: str, array: StridedArray, axes: Sequence[int], dtype: np.dtype) -> StridedArray:
        return _wrapped(self._cpu.reduce(kind, self._array(array), axes, dtype))

    def matmul(self, a: StridedArray, b: StridedArray, dtype: np.dtype | None = None) -> StridedArray:
        return _wrapped(self._cpu.matmul(self._array(a), self._array(b), dtype))

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

    def kernel(
        self, family: str, defines: dict[str, Any], name: str, names: Sequence[str], local: int | None = None
    ) -> Any:
        self._here.wanted = names
        return super().kernel(family, defines, name, names, local)

    def _compile(self, source: str, fuse: bool, double: bool) -> ctypes.CDLL:
        # A kernel has one signature wherever the text has several of its name. A definition may hold a part of it.
        defined = dict(re.findall(r"^#define (NAME|POINTERS|RANDOM_ARGUMENTS|INPUTS) (.*)$", source, re.M))
        kernels = dict(re.findall(r"^KERNEL void (.+?)\(((?:GLOBAL|POINTERS|INPUTS) [^{]*)\) \{", source, re.M))
        for name, parameters in kernels.items():
            if _spelled(name, defined["NAME"]) in self._here.wanted:
                whole = re.sub(r"\b(POINTERS|RANDOM_ARGUMENTS|INPUTS)\b", lambda match: defined[match[0]], parameters)
                whole = whole.removesuffix(" CHECKED")  # elementwise: rows without a check
                source += _in_rows(name, whole)
        return host_build.load(source, ("-ffp-contract=fast",) if fuse else ())[0]

    def _get_kernel(self, program: ctypes.CDLL, name: str, local: int) -> tuple[Any, int]:
        return ctypes.cast(getattr(program, f"{name}_items"), ctypes.c_void_p).value, local

    def _launch(self, kernel: Any, groups: int, *args: Any) -> None:
        # What is passed by value is pointed to as well.
        pointers = (ctypes.c_void_p * len(args))(*[
            ctypes.cast(ctypes.c_char_p(a), ctypes.c_void_p).value if type(a) is bytes else a.address for a in args
        ])  # fmt: skip
        launch = (*kernel, groups, pointers, args)
        waiting = getattr(self._here, "launches", None)
        if waiting is None:
            self._run([launch])
        else:
            waiting.append(launch)

    def _run(self, launches: Sequence[tuple[Any, ...]]) -> None:
        """Share out launches that do not depend on each other; their arguments live until they are done."""
        parts: list[_Items] = []
        most = max(1, PARTS // max(len(launches), 1))
        for function, local, groups, pointers, _ in launches:
            items = groups * local
            count = min(items, most)
            table = ctypes.addressof(pointers)
            cuts = [items * i // count for i in range(count + 1)]
            parts += [_Items(function, table, *cut) for cut in itertools.pairwise(cuts)]

        self._cpu._workers.native().gg_share_items((_Items * len(parts))(*parts), len(parts))


def _spelled(name: str, own: str) -> str:
    """The symbol that ``NAME`` or ``CAT(NAME, _suffix)`` stands for."""
    return re.sub(r"^CAT\(NAME, (\w+)\)$|^NAME$", lambda match: own + (match[1] or ""), name)


def _in_rows(name: str, parameters: str) -> str:
    """C text of a function that runs some of a kernel's items, given a table of where its arguments are."""
    passed = []
    for i, parameter in enumerate(parameters.split(",")):
        kind, pointer, _ = parameter.rpartition("*")
        passed.append(f"({kind}*)p[{i}]" if pointer else f"*(const {parameter.split()[0]} *)p[{i}]")
    return (
        f"\nKERNEL void CAT({name}, _items)(void *const *p, i64 first, i64 last) {{\n"
        f"    for (gg_item = first; gg_item < last; gg_item++) {name}({', '.join(passed)});\n}}\n"
    )
