"""The ``cpu`` backend: NumPy. It is the specification the other backends are tested against.

Large calls of some methods go to kernels that the machine's C compiler builds (``cpu_kernels.py``)."""

from __future__ import annotations

import builtins
import contextvars
import math
import os
import platform
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from gpugrad import layout
from gpugrad.backends import philox
from gpugrad.backends.base import Array, DeviceInfo, Elementwise, Scalar
from gpugrad.backends.blas import numpy_blas
from gpugrad.backends.cpu_attention import AttentionOps
from gpugrad.backends.cpu_blocks import LARGE, add_slices, flattened, map_blocks, reduce_blocks, row_blocks
from gpugrad.backends.cpu_channels import ChannelOps
from gpugrad.backends.cpu_kernels import KernelOps, kernels_from
from gpugrad.backends.cpu_rows import check_index
from gpugrad.backends.cpu_updates import UpdateOps
from gpugrad.backends.cpu_windows import WindowOps
from gpugrad.backends.host_memory import COUNTED, HostPool, retrying
from gpugrad.backends.products import Products
from gpugrad.backends.threads import Workers
from gpugrad.dtypes import HALVES
from gpugrad.errors import DeviceError

_F32 = np.dtype(np.float32)
_ndarray = np.ndarray
_I64 = np.dtype(np.int64)
_BOOL = np.dtype(bool)
#: from how many elements on an array is filled by two threads
FILL = 1 << 20
_PLAIN = frozenset(np.dtype(t) for t in ("f4", "f8"))
_ufunc = np.ufunc
_asarray = np.asarray
_copyto = np.copyto


def enumerate_devices(probe: bool = False) -> list[DeviceInfo]:
    """The one CPU device."""
    return [CpuBackend().info()]


def open(index: int) -> CpuBackend:
    """The CPU backend. Raises DeviceError for an index other than 0."""
    if index:
        raise DeviceError(f"device cpu:{index} is absent: there is one CPU device, 'cpu'")
    return CpuBackend()


class _Quiet(threading.local):
    """Runs NumPy with floating-point warnings off, as PyTorch has no such warnings.

    Entering a prepared context costs a tenth of what ``numpy.errstate`` does."""

    def __init__(self) -> None:
        context = contextvars.copy_context()
        context.run(np.seterr, all="ignore")
        self.run = context.run


_quiet = _Quiet()


_numbers: dict[np.dtype, dict[Any, np.ndarray]] = {d: {} for d in _PLAIN}


def _number(x: float, dtype: np.dtype) -> np.ndarray:
    """A Python number as a read-only 0-d array: a ufunc takes half the time (0.18 us for 0.39) with one, as the number
    itself has to be converted in each call. The last few hundred are kept."""
    known = _numbers[dtype]
    key = x or ("-0.0" if math.copysign(1.0, x) < 0 else "0.0")  # 0.0 and -0.0 would be one key
    found = known.get(key)
    if found is None:
        found = _quiet.run(np.array, float(x), dtype)
        found.flags.writeable = False
        if len(known) > 400:
            known.clear()
        if x == x:
            known[key] = found
    return found


def _calm(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return _quiet.run(function, *args, **kwargs)


class CpuBackend(KernelOps, AttentionOps, ChannelOps, UpdateOps, WindowOps):
    """NumPy arrays as they are."""

    name = "cpu"
    index = 0
    lowering = "host"

    def __init__(self) -> None:
        self._pool = HostPool()
        self._blas = numpy_blas()
        self._workers = Workers(self._blas.begin_thread)
        self._multiply = Products(self._workers, self._blas, self._pool.empty)
        self.kernels_from = kernels_from()

    def info(self) -> DeviceInfo:
        try:
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, ValueError, OSError):
            memory = None
        return DeviceInfo(
            name=_processor_name(),
            kind="cpu",
            memory=memory,
            compute_units=os.cpu_count(),
            driver=", ".join(filter(None, (f"NumPy {np.__version__}", self._blas.name))),
        )

    def supports(self, dtype: np.dtype) -> bool:
        return True

    # -- memory --------------------------------------------------------------
    def empty(self, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
        try:
            return self._pool.empty(shape, dtype)
        except (MemoryError, ValueError) as error:
            raise self._pool.out_of_memory(error, shape, dtype) from error

    def from_host(self, array: np.ndarray) -> np.ndarray:
        return np.array(array, order="C")

    def to_host(self, array: np.ndarray) -> np.ndarray:
        return np.array(array, order="C")

    def export(self, array: np.ndarray) -> np.ndarray:
        return array

    def address(self, array: np.ndarray) -> int:
        return array.ctypes.data

    def extent(self, array: np.ndarray) -> tuple[Any, int, int]:
        root = array
        while True:
            base = root.base
            if base is not None and not isinstance(base, np.ndarray):
                base = getattr(base, "owner", None)  # a _Memory of as_strided, or a block of the pool
            if not isinstance(base, np.ndarray):
                break
            root = base
        start = root.__array_interface__["data"][0]
        return root, array.__array_interface__["data"][0] - start, root.nbytes

    def release_cached(self) -> None:
        self._pool.clear()

    @property
    def threads(self) -> int:
        """How many threads share out the work."""
        return self._workers.threads

    @threads.setter
    def threads(self, n: int) -> None:
        self._workers.resize(n)

    def adopt(self, foreign: Any) -> np.ndarray:
        try:
            return np.from_dlpack(foreign)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise BufferError(
                f"the memory of {type(foreign).__name__} cannot be shared: {error}; a bfloat16 or read-only one has to "
                "be converted or copied first"
            ) from error

    def as_strided(self, array: np.ndarray, shape: Sequence[int], strides: Sequence[int], offset: int) -> np.ndarray:
        flags = array.flags
        if not offset and flags.c_contiguous and flags.writeable:
            try:
                return np.ndarray(shape, array.dtype, array, 0, strides)
            except (ValueError, TypeError):
                pass  # the view reaches before the buffer, or past this array into its base
        return _strided_view(array, tuple(shape), tuple(strides), offset)

    def synchronize(self) -> None:
        return None

    def memory_stats(self) -> dict[str, int]:
        """As in the base class. Counted are arrays of 64 KiB (``host_memory.COUNTED``) and more which the backend's
        methods return: what is smaller, and what a method makes for itself and drops, is not."""
        pool = self._pool
        return {"allocated": pool.allocated, "peak": pool.peak, "reserved": pool.allocated + pool.held}

    def reset_peak_memory_stats(self) -> None:
        self._pool.peak = self._pool.allocated

    # -- elementwise ---------------------------------------------------------
    def map(
        self,
        kernel: Elementwise,
        inputs: Sequence[Array | Scalar],
        compute: np.dtype,
        result: np.dtype,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        if kernel.simple and compute in _PLAIN and (out is None or out is inputs[0]):
            # Small arrays of the computing dtype, and numbers: every look is a twentieth of the time of an addition.
            function = kernel.numpy
            x: Any
            y: Any
            if len(inputs) == 2:
                x, y = inputs
                if type(x) is _ndarray:
                    small = x.dtype is compute and x.size < LARGE
                    if type(y) is _ndarray:
                        small = small and y.dtype is compute and y.size < LARGE
                    elif small := small and (type(y) is float or type(y) is int):
                        y = _number(y, compute) if type(function) is _ufunc else float(y)
                else:
                    small = type(y) is _ndarray and y.dtype is compute and y.size < LARGE
                    if small := small and (type(x) is float or type(x) is int):
                        x = _number(x, compute) if type(function) is _ufunc else float(x)
                if small:
                    if out is not None and out.dtype is result is compute and type(function) is _ufunc:
                        return _quiet.run(function, x, y, out=out)
                    try:
                        value = _quiet.run(function, x, y)
                    except MemoryError:  # what they broadcast to need not be small
                        small = False
            else:
                x = inputs[0]
                small = len(inputs) == 1 and x.dtype is compute and x.size < LARGE
                if small:
                    value = _quiet.run(function, x)
            if small:
                if out is not None:
                    _quiet.run(_copyto, out, value, "unsafe")
                    return out
                if type(value) is not _ndarray:  # what ufuncs make of 0-d arrays
                    value = _asarray(value)
                if value.nbytes >= COUNTED:
                    return self._pool.count(_finished(value, result, inputs))
                if value.dtype is result and value.flags.c_contiguous:
                    return value
                return _finished(value, result, inputs)
        return self._map_any(kernel, inputs, compute, result, out)

    def _map_any(
        self,
        kernel: Elementwise,
        inputs: Sequence[Array | Scalar],
        compute: np.dtype,
        result: np.dtype,
        out: np.ndarray | None,
    ) -> np.ndarray:
        work = _F32 if compute in HALVES else compute
        for x in inputs:
            if type(x) is np.ndarray and x.size >= LARGE and kernel.check is None:
                done = None if out is not None else self.map_by_kernel(kernel, inputs, compute, result)
                if done is None:
                    done = self._map_large(kernel, inputs, work, result, out)
                if done is not None:
                    return done
                break
        values = []
        for x in inputs:
            if type(x) is not np.ndarray:
                values.append(float(x) if work.kind == "f" else _integer(x, work))
            elif x.dtype == work:
                values.append(x)
            else:
                values.append(_calm(x.astype, _BOOL if kernel.masked and not values else work))
        if kernel.check is not None and (bad := _calm(kernel.check, *values)).any():
            _raise_error(kernel, values, np.asarray(bad))
        value = _quiet.run(kernel.numpy, *values)
        if out is not None:
            _quiet.run(np.copyto, out, value, "unsafe")
            return out
        return _finished(value, result, values)

    def _map_large(
        self, kernel: Elementwise, inputs: Sequence[Any], work: np.dtype, result: np.dtype, out: np.ndarray | None
    ) -> np.ndarray | None:
        """:meth:`map` in blocks, or None where the operands are not laid out for it."""
        values = [x if type(x) is np.ndarray else float(x) if work.kind == "f" else _integer(x, work) for x in inputs]
        shapes = {v.shape for v in values if type(v) is np.ndarray}
        shape = shapes.pop() if len(shapes) == 1 else np.broadcast_shapes(*shapes)
        blocks = flattened(values, shape)
        if blocks is None or math.prod(shape) < LARGE:
            return None
        values, cut_shape = blocks
        if out is not None and (out.shape != shape or not _writes_in_step(out, inputs)):
            return None
        typed = values[1:] if kernel.masked else values
        mixed = any(type(v) is np.ndarray and v.dtype != work for v in typed)
        if kernel.masked and (mixed or values[0].dtype != _BOOL):
            return None
        target = self._pool.empty(shape, result) if out is None else out
        cast = partial(np.ndarray.astype, dtype=work, copy=False) if mixed else None
        map_blocks(kernel.numpy, values, target.reshape(cut_shape), cut_shape, self._share, cast)
        return target

    _quietly = staticmethod(_calm)

    def _share(self, function: Callable[[int], None], count: int) -> None:
        self._workers.share(lambda i: _quiet.run(function, i), count)

    def copy(self, array: np.ndarray, dtype: np.dtype | None = None, out: np.ndarray | None = None) -> np.ndarray:
        if out is None:
            dtype = dtype or array.dtype
            if array.size >= LARGE and array.shape[0] > 1:
                return self._copy_large(array, dtype)
            if dtype == _BOOL and array.dtype != _BOOL:
                return np.array(array != 0, order="C")
            return _calm(np.array, array, dtype, order="C")
        if out.dtype == _BOOL and array.dtype != _BOOL:
            array = array != 0
        _quiet.run(np.copyto, out, array, "unsafe")
        return out

    def _copy_large(self, array: np.ndarray, dtype: np.dtype) -> np.ndarray:
        result = self._pool.empty(array.shape, dtype)
        to_bool = dtype == _BOOL and array.dtype != _BOOL
        step, count = row_blocks(array.shape)

        def rows(i: int) -> None:
            part = array[i * step : (i + 1) * step]
            np.copyto(result[i * step : (i + 1) * step], part != 0 if to_bool else part, "unsafe")

        self._share(rows, count)
        return result

    def fill(self, out: np.ndarray, value: Scalar) -> None:
        if out.dtype in _PLAIN:
            if out.size >= FILL and out.flags.c_contiguous:
                self._fill_large(out.reshape(-1), value)
            else:
                out.fill(value)
        else:
            _quiet.run(np.copyto, out, np.asarray(value), "unsafe")

    def _fill_large(self, flat: np.ndarray, value: Scalar) -> None:
        half = -(-flat.size // 2)
        self._share(lambda i: flat[i * half : (i + 1) * half].fill(value), 2)

    def arange(self, n: int, start: Scalar, step: Scalar, dtype: np.dtype) -> np.ndarray:
        work = np.float64 if dtype.kind == "f" or dtype in HALVES else np.int64
        values = np.arange(n, dtype=np.int64).astype(work)
        return (values * work(step) + work(start)).astype(dtype)

    # -- reductions, scans, order ---------------------------------------------
    def reduce(self, kind: str, array: np.ndarray, axes: Sequence[int], dtype: np.dtype) -> np.ndarray:
        ufunc = _REDUCE[kind]
        if array.size < LARGE and dtype in _PLAIN and array.dtype is dtype and kind not in _TRUTH:
            value = _asarray(_quiet.run(ufunc.reduce, array, tuple(axes), dtype))
            if value.nbytes >= COUNTED:
                return self._pool.count(np.ascontiguousarray(value))
            return value if value.flags.c_contiguous else np.ascontiguousarray(value)
        return self._reduce_any(kind, array, axes, dtype)

    def _reduce_any(self, kind: str, array: np.ndarray, axes: Sequence[int], dtype: np.dtype) -> np.ndarray:
        ufunc = _REDUCE[kind]
        done = self.reduce_by_kernel(kind, array, axes, dtype)
        if done is not None:
            return done
        if array.size >= LARGE and len(axes):
            blocked = self._reduce_large(kind, array, axes, dtype)
            if blocked is not None:
                return blocked
        if kind in _TRUTH:
            value = ufunc.reduce(array, axis=tuple(axes), dtype=_BOOL)
        elif kind in ("sum", "prod"):
            work = _F32 if dtype in HALVES else dtype
            if work.kind != "f" and array.dtype != work:
                array = _calm(array.astype, work)
            value = _calm(ufunc.reduce, array, axis=tuple(axes), dtype=work)
        else:
            value = _calm(ufunc.reduce, array, axis=tuple(axes))
        value = np.asarray(value)
        if value.dtype != dtype:
            value = _calm(value.astype, dtype)
        return value if value.flags.c_contiguous else np.ascontiguousarray(value)

    def _reduce_large(self, kind: str, array: np.ndarray, axes: Sequence[int], dtype: np.dtype) -> np.ndarray | None:
        """:meth:`reduce` in blocks, or None where the array is not laid out for it."""
        if kind in ("max", "min"):
            work = None
        else:
            work = _BOOL if kind in ("any", "all") else _F32 if dtype in HALVES else dtype
        value = reduce_blocks(_REDUCE[kind], array, axes, work, self._share)
        return value if value is None or value.dtype == dtype else _calm(value.astype, dtype)

    def arg_reduce(self, kind: str, array: np.ndarray, axis: int) -> np.ndarray:
        function = np.argmax if kind == "argmax" else np.argmin
        if array.dtype in HALVES:
            array = array.astype(np.float32)
        return np.ascontiguousarray(function(array, axis=axis), np.int64).reshape(
            layout.reduced_shape(array.shape, (axis,), False)
        )

    def scan(self, kind: str, array: np.ndarray, axis: int, dtype: np.dtype) -> np.ndarray:
        ufunc = _REDUCE[kind]
        work = dtype
        if dtype.kind not in "biu":  # one after another, float32 would lose a digit every hundred elements or so
            work = np.dtype(np.float64) if kind in ("sum", "prod") else _F32 if dtype in HALVES else dtype
        value = _calm(ufunc.accumulate, array.astype(work, copy=False), axis=axis)
        return np.ascontiguousarray(_calm(value.astype, dtype, copy=False))

    def sort(self, array: np.ndarray, axis: int, descending: bool) -> tuple[np.ndarray, np.ndarray]:
        keys = array.astype(np.float32) if array.dtype in HALVES else array
        if descending:
            # Reversed before and after: equals keep their order and NaN comes first.
            keys = np.flip(keys, axis)
        order = np.argsort(keys, axis=axis, kind="stable").astype(np.int64, copy=False)
        if descending:
            order = array.shape[axis] - 1 - np.flip(order, axis)
        order = np.ascontiguousarray(order)
        return np.ascontiguousarray(np.take_along_axis(array, order, axis)), order

    # -- linear algebra --------------------------------------------------------
    def matmul(self, a: np.ndarray, b: np.ndarray, dtype: np.dtype | None = None) -> np.ndarray:
        if a.dtype in _PLAIN:
            try:
                value = _quiet.run(self._multiply, a, b)
            except MemoryError:
                return self._matmul_any(a, b)
            return self._pool.count(value) if value.nbytes >= COUNTED else value
        return self._matmul_any(a, b, dtype)

    def _matmul_any(self, a: np.ndarray, b: np.ndarray, dtype: np.dtype | None = None) -> np.ndarray:
        dtype = dtype or a.dtype
        if a.dtype in HALVES:
            a, b = a.astype(np.float32), b.astype(np.float32)
        value = _calm(self._multiply if a.dtype in _PLAIN else np.matmul, a, b)
        return value if value.dtype == dtype else _calm(value.astype, dtype)

    def factorize(self, kind: str, arrays: Sequence[np.ndarray], **params: Any) -> tuple[np.ndarray, ...]:
        from gpugrad.backends import factor  # few programs need it

        return factor.compute(kind, tuple(arrays), **params)

    # -- indexing ----------------------------------------------------------------
    def take(self, array: np.ndarray, index: np.ndarray, axis: int, op: str) -> np.ndarray:
        check_index(index, array.shape[axis], op)
        if array.dtype not in _PLAIN or not array.size:
            return np.take(array, index, axis=axis)
        out = self.empty((*array.shape[:axis], index.size, *array.shape[axis + 1 :]), array.dtype)
        if axis == 0 and out.size >= LARGE:
            step, count = row_blocks(out.shape)

            def rows(i: int) -> None:
                part = slice(i * step, (i + 1) * step)
                np.take(array, index[part], axis=0, out=out[part], mode="clip")

            self._share(rows, count)
            return out
        return np.take(array, index, axis=axis, out=out, mode="clip")  # checked above; "raise" would buffer

    def gather(self, array: np.ndarray, index: np.ndarray, axis: int, op: str) -> np.ndarray:
        check_index(index, array.shape[axis], op)
        return np.ascontiguousarray(array[_grid(index, axis)])

    def scatter(self, out: np.ndarray, index: np.ndarray, source: np.ndarray, axis: int, mode: str, op: str) -> None:
        check_index(index, out.shape[axis], op)
        rows = all(
            s == 0 or n == 1 for i, (n, s) in enumerate(zip(index.shape, index.strides, strict=True)) if i != axis
        )
        whole = all(n == m for i, (n, m) in enumerate(zip(index.shape, out.shape, strict=True)) if i != axis)
        lines = rows and whole and index.size
        where: Any
        if lines:
            line = index[tuple(slice(None) if i == axis else 0 for i in range(index.ndim))]
            where = (slice(None),) * axis + (line,)
        else:
            where = _grid(index, axis)
        if mode == "set":
            out[where] = source
        elif out.dtype in HALVES and mode in ("add", "multiply"):
            wide = out.astype(np.float32)
            _SCATTER[mode].at(wide, where, source.astype(np.float32))
            out[...] = wide
        elif lines and mode == "add" and axis == 0 and out.ndim > 1:
            add_slices(out, line, source, self._share)
        elif not lines and index.size and out.flags.c_contiguous:
            # One index for each element takes NumPy a third of the time that one for each dimension does.
            place = np.ravel_multi_index(where, out.shape)
            _calm(_SCATTER[mode].at, out.reshape(-1), place.reshape(-1), source.reshape(-1))
        else:
            _calm(_SCATTER[mode].at, out, where, source)

    def nonzero(self, array: np.ndarray) -> np.ndarray:
        return np.flatnonzero(array).astype(np.int64, copy=False)

    # -- random ------------------------------------------------------------------
    def random(self, kind: str, shape: Sequence[int], dtype: np.dtype, seed: int, stream: int) -> np.ndarray:
        n = int(np.prod(shape, dtype=np.int64))
        return philox.random(kind, n, dtype, seed, stream).reshape(shape)


# Memory runs out where arrays are large: the quick ways for small ones are left as they are. The numbers say which
# argument is written to.
for _name, _out in {
    **dict.fromkeys(
        "_matmul_any _reduce_any arange arg_reduce scan sort take gather random nonzero factorize from_host to_host "
        "convolve convolve_input_grad convolve_weight_grad fold max_pool max_pool_grad".split()
    ),
    **dict.fromkeys(n for n in dir(CpuBackend) if n.startswith("fused_")),
    "_map_any": 4,
    "copy": 2,
    "scatter": 0,
    "fused_update": 1,
    "fused_scale": 0,
}.items():
    setattr(CpuBackend, _name, retrying(getattr(CpuBackend, _name), _out))


_REDUCE: dict[str, np.ufunc] = {
    "sum": np.add,
    "prod": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
    "any": np.logical_or,
    "all": np.logical_and,
}
_TRUTH = ("any", "all")
_SCATTER = {"add": np.add, "multiply": np.multiply, "max": np.maximum, "min": np.minimum}


def _processor_name() -> str:
    try:
        with builtins.open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        return platform.processor() or platform.machine()
    return platform.processor() or platform.machine()


def _raise_error(kernel: Elementwise, values: Sequence[Any], bad: np.ndarray) -> None:
    """The error of ``kernel``, its text filled in with the inputs at the first bad element."""
    assert kernel.error is not None
    kind, text = kernel.error
    shape = np.broadcast_shapes(bad.shape, *(np.shape(v) for v in values))
    first = np.unravel_index(int(np.argmax(np.broadcast_to(bad, shape))), shape)
    raise kind(text.format(**{k: np.broadcast_to(v, shape)[first] for k, v in zip("abc", values, strict=False)}))


def _integer(x: Scalar, dtype: np.dtype) -> Any:
    """A Python number as an integer or bool of ``dtype``; integers wrap."""
    if dtype.kind == "b":
        return np.bool_(x)
    bits = 8 * dtype.itemsize
    wrapped = int(x) % (1 << bits)
    return dtype.type(wrapped - (1 << bits) if dtype.kind == "i" and wrapped >> (bits - 1) else wrapped)


def _finished(value: Any, result: np.dtype, inputs: Sequence[Any]) -> np.ndarray:
    """What a kernel gave, as an array of dtype ``result`` in C order or the order of all its operands."""
    if type(value) is not np.ndarray:
        value = np.asarray(value)
    if value.dtype != result:
        value = _calm(value.astype, result)
    if not value.flags.c_contiguous and not _same_layout(value, inputs):
        value = np.ascontiguousarray(value)
    return value


def _writes_in_step(out: np.ndarray, inputs: Sequence[Any]) -> bool:
    """Whether ``out`` may be written block by block: it overlaps an operand only where it is the same elements."""
    if not out.flags.c_contiguous:
        return False
    for x in inputs:
        if type(x) is np.ndarray and np.may_share_memory(out, x):
            if x.ctypes.data != out.ctypes.data or x.strides != out.strides or x.shape != out.shape:
                return False
            if x.dtype != out.dtype:
                return False
    return True


def _same_layout(value: np.ndarray, inputs: Sequence[Any]) -> bool:
    """Whether all full-shape inputs share the strides that NumPy gave the result."""
    return all(
        x.strides == value.strides or (x.dtype != value.dtype and x.flags.f_contiguous == value.flags.f_contiguous)
        for x in inputs
        if type(x) is np.ndarray and x.shape == value.shape
    )


def _strided_view(array: np.ndarray, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> np.ndarray:
    """A view anywhere in the memory that ``array`` is part of."""
    interface = array.__array_interface__
    holder = _Memory(interface["data"][0] + offset, shape, strides, array.dtype, array)
    view = np.asarray(holder)
    return view if view.dtype == array.dtype else view.view(array.dtype)


class _Memory:
    """Hands NumPy an address and a layout, and keeps the owner of the memory alive."""

    def __init__(
        self, address: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype, owner: np.ndarray
    ) -> None:
        self.owner = owner
        typestr = dtype.str if dtype.kind in "biuf" and dtype not in HALVES else f"|V{dtype.itemsize}"
        self.__array_interface__ = {
            "data": (address, not owner.flags.writeable),
            "shape": shape,
            "strides": strides,
            "typestr": typestr,
            "version": 3,
        }


def _grid(index: np.ndarray, axis: int) -> tuple[np.ndarray, ...]:
    """Index arrays that pick, at each place of ``index``, the element it names along ``axis``."""
    return tuple(
        index if i == axis else np.arange(n).reshape((n,) + (1,) * (index.ndim - i - 1))
        for i, n in enumerate(index.shape)
    )
