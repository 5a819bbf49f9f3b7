"""The backend contract: all a device has to do for gpugrad, on two pages.

A backend moves and computes on *arrays*. It knows nothing of tensors or
gradients. An array is any object with NumPy's layout vocabulary:

``shape``    tuple of int                ``dtype``    ``numpy.dtype``
``strides``  tuple of int, in bytes      ``ndim``, ``size``, ``itemsize``, ``nbytes``
``transpose(axes)`` and ``array[basic index]``: views that share memory

``numpy.ndarray`` is one (the ``cpu`` backend uses it as it is);
:class:`StridedArray` below is one for devices whose memory NumPy cannot see.

Every method may assume that shapes, dtypes and axes were checked above: axes
are non-negative, operands live on this device, index tensors are integers.
What only the device can see is checked here: an index out of range must raise
``OutOfRangeError`` of ``gpugrad.errors`` (an IndexError), at once or, on a
device that runs behind the host, at the next call that reads a value back
(:meth:`Backend.to_host`, :meth:`Backend.synchronize`). No method may read or write out of bounds.

Half types (float16, bfloat16) are storage types: values are loaded, computed
on in float32 and rounded once when stored. Arrays passed in may have any
strides, 0 (broadcast) and negative ones included; arrays returned are fresh
and dense unless the method says "view". The ``cpu`` backend is the
specification the others are tested against.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter_ns
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from gpugrad import layout

Array = Any  # numpy.ndarray, StridedArray, or a third party's own
Scalar = bool | int | float

#: how the names of threads begin that a backend starts for its own work: a call they make is part of another
WORKER_THREADS = "gpugrad"


class DeviceInfo(NamedTuple):
    """What ``python -m gpugrad devices`` and ``gg.devices()`` tell of a device."""

    name: str
    kind: str  # "cpu", "gpu" or "accelerator"
    vendor: str = ""
    memory: int | None = None  # bytes
    compute_units: int | None = None
    fp16: bool = True  # arithmetic in half, not storage: storage always works
    fp64: bool = True
    driver: str = ""
    error: str = ""  # why it cannot be used, found out by probing
    extra: Mapping[str, str] = MappingProxyType({})


class Elementwise:
    """One elementwise computation, as the row of an op describes it to a backend.

    ``numpy(*inputs)`` computes it on ndarrays and Python scalars. ``c`` maps the
    kind of the computing dtype, ``"f"`` (floating), ``"i"`` (integer) or ``"b"``
    (bool), to a C expression over the inputs ``a``, ``b``, ``c``, ... which have the
    type ``T``; ``K(x)`` writes the floating constant ``x`` in that type. ``masked``: the first
    input is a condition; ``numpy`` gets it as bool, in C it is a ``T`` like the others.
    ``check``/``c_check``: an optional predicate, true where an element is an
    error (``error``: exception type and text).
    """

    __slots__ = ("name", "numpy", "c", "arity", "check", "c_check", "error", "masked", "simple")

    def __init__(
        self,
        name: str,
        numpy: Callable[..., Any],
        c: str | dict[str, str],
        arity: int,
        check: Callable[..., Any] | None = None,
        c_check: str | None = None,
        error: tuple[type[Exception], str] | None = None,
        masked: bool = False,
    ) -> None:
        self.name = name
        self.numpy = numpy
        self.c = {"f": c, "i": c, "b": c} if isinstance(c, str) else c
        self.arity = arity
        self.check = check
        self.c_check = c_check
        self.error = error
        self.masked = masked
        self.simple = check is None and not masked


class Timeline:
    """Tells when a device worked, for the profiler, from when :meth:`Backend.timeline` makes it until :meth:`close`.

    This one is the host's clock around each call: right for devices whose calls return when the work is done."""

    #: whether calls of several threads may be worked on at a time; else the device takes one after another
    concurrent = True

    def start(self) -> Any:
        """Before a call of the contract. Returns a mark; what this thread asks of the device until :meth:`stop` is its
        work. Does not wait for the device."""
        return [perf_counter_ns()]

    def stop(self, mark: Any) -> None:
        """After the call, also if it raised."""
        mark.append(perf_counter_ns())

    def spans(self, mark: Any) -> list[tuple[int, int]]:
        """(begin, end) of each piece of the work, in nanoseconds on the clock of ``time.perf_counter_ns``. Waits until
        it is done; also after :meth:`close`."""
        return [tuple(mark)]

    def close(self) -> None:
        """Undo what measuring needed."""


class Backend(ABC):
    """One device. ``name`` is the type ("cpu", "cuda", ...), ``index`` its number."""

    name: str
    index: int
    #: how ``gpugrad.compile`` runs programs here: "" step by step, or a name in ``gpugrad/compiler``
    lowering = ""

    # -- identity ------------------------------------------------------------
    @abstractmethod
    def info(self) -> DeviceInfo:
        """Name, memory and abilities of the device."""

    @abstractmethod
    def supports(self, dtype: np.dtype) -> bool:
        """Whether arrays of ``dtype`` can be stored and computed on."""

    # -- memory --------------------------------------------------------------
    @abstractmethod
    def empty(self, shape: Sequence[int], dtype: np.dtype) -> Array:
        """An uninitialised C-contiguous array. Raises ``OutOfMemoryError``."""

    @abstractmethod
    def from_host(self, array: np.ndarray) -> Array:
        """A C-contiguous copy on this device of a NumPy array of any strides."""

    @abstractmethod
    def to_host(self, array: Array) -> np.ndarray:
        """The values as a NumPy array, C-contiguous. Waits; raises what kernels flagged."""

    @abstractmethod
    def as_strided(self, array: Array, shape: Sequence[int], strides: Sequence[int], offset: int) -> Array:
        """View: any ``shape``/``strides`` (bytes) starting ``offset`` bytes after the
        first element of ``array``. The caller guarantees that it stays in bounds."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for all queued work; raise what kernels flagged."""

    @abstractmethod
    def memory_stats(self) -> dict[str, int]:
        """Bytes: ``allocated`` by arrays that live, ``peak``, the most that was allocated since the device was opened
        or :meth:`reset_peak_memory_stats` was called, and ``reserved``: those and what a pool holds."""

    def reset_peak_memory_stats(self) -> None:
        """Let ``peak`` begin anew, from what is allocated now."""
        raise NotImplementedError(f"device {self.name} does not tell its peak of memory from a given moment on")

    # -- sharing with other libraries; override where the memory can be shared ---
    def export(self, array: Array) -> Any:
        """An object that shares memory with ``array`` and has DLPack's methods, for other libraries
        to take. Raises BufferError where memory cannot be shared."""
        raise BufferError(f"memory of device {self.name} cannot be shared with other libraries; call .cpu() first")

    def adopt(self, foreign: Any) -> Array:
        """An array that shares memory with ``foreign``, an object with DLPack's methods on this
        device. Raises BufferError."""
        raise BufferError(f"device {self.name} cannot share the memory of other libraries; copy through the CPU")

    def address(self, array: Array) -> int:
        """Where the first element is: equal for arrays that begin at one place in memory."""
        raise NotImplementedError(f"device {self.name} does not tell addresses")

    def extent(self, array: Array) -> tuple[Any, int, int]:
        """(owner, offset, size) of the memory behind ``array``, in bytes: ``owner`` is one object for all arrays that
        share it, ``offset`` where the first element is in it. ``gpugrad.compile`` tells by it which calls use the same
        memory."""
        raise NotImplementedError(f"device {self.name} does not say which arrays share memory (Backend.extent)")

    def release_cached(self) -> None:
        """Give memory that a pool keeps for later back to the system."""
        return None

    def timeline(self) -> Timeline:
        """Measures how long the device works from now on; at most one is open at a time. Override where work goes on
        after a call has returned."""
        return Timeline()

    # -- elementwise ---------------------------------------------------------
    @abstractmethod
    def map(
        self,
        kernel: Elementwise,
        inputs: Sequence[Array | Scalar],
        compute: np.dtype,
        result: np.dtype,
        out: Array | None = None,
    ) -> Array:
        """``kernel`` over broadcast inputs (at least one array; the rest may be Python
        scalars), each converted to ``compute``, the outcome converted to ``result``.

        With ``out`` (of the broadcast shape, any strides, may overlap the inputs)
        the result is written there, converted to its dtype, and ``out`` returned."""

    @abstractmethod
    def copy(self, array: Array, dtype: np.dtype | None = None, out: Array | None = None) -> Array:
        """A C-contiguous copy, converted to ``dtype``; or a copy into ``out``, which
        ``array`` broadcasts to and which may overlap it. Float to integer truncates;
        anything to bool is ``!= 0``."""

    @abstractmethod
    def fill(self, out: Array, value: Scalar) -> None:
        """Set every element of ``out`` (any strides)."""

    @abstractmethod
    def arange(self, n: int, start: Scalar, step: Scalar, dtype: np.dtype) -> Array:
        """``start + i * step`` for i in 0..n-1, computed in float64 (float32 on a device
        without it) for floating dtypes, in int64 for integer ones."""

    # -- reductions, scans, order ---------------------------------------------
    @abstractmethod
    def reduce(self, kind: str, array: Array, axes: Sequence[int], dtype: np.dtype) -> Array:
        """``kind`` in sum, prod, max, min, any, all over ``axes`` (sorted, maybe all or
        none), which the result lacks. Accumulates in ``dtype`` (float32 for half), in a
        fixed order that depends on shapes and strides alone. sum/prod of nothing is 0/1, any/all
        False/True; max/min of nothing never arrives here; max/min pass NaN on."""

    @abstractmethod
    def arg_reduce(self, kind: str, array: Array, axis: int) -> Array:
        """argmax or argmin along ``axis``, which the result (int64) lacks: the first of
        equals; the first NaN beats all numbers."""

    @abstractmethod
    def scan(self, kind: str, array: Array, axis: int, dtype: np.dtype) -> Array:
        """Inclusive sum, prod, max or min along ``axis``; accumulates as :meth:`reduce`, NaN passes on."""

    @abstractmethod
    def sort(self, array: Array, axis: int, descending: bool) -> tuple[Array, Array]:
        """Sorted values and their int64 positions along ``axis``; stable; NaN counts as
        greater than every number."""

    # -- linear algebra --------------------------------------------------------
    @abstractmethod
    def matmul(self, a: Array, b: Array, dtype: np.dtype | None = None) -> Array:
        """``[*batch, m, k] @ [*batch, k, n]``, same dtype, same batch shape (expanded
        with stride 0 where it was broadcast). Half accumulates in float32, which ``dtype`` may ask
        for as the result: not rounded, as more is to be added. k may be 0."""

    # -- indexing ----------------------------------------------------------------
    @abstractmethod
    def take(self, array: Array, index: Array, axis: int, op: str) -> Array:
        """Slices of ``array`` along ``axis`` at the 1-d integer ``index``. An index outside
        [0, n) raises ``OutOfRangeError`` naming ``op``, the index and n."""

    @abstractmethod
    def gather(self, array: Array, index: Array, axis: int, op: str) -> Array:
        """``out[.., i, ..] = array[.., index[.., i, ..], ..]``: ``index`` has as many
        dimensions as ``array`` and is no longer than it but along ``axis``."""

    @abstractmethod
    def scatter(self, out: Array, index: Array, source: Array, axis: int, mode: str, op: str) -> None:
        """In place: ``out[.., index[.., i, ..], ..] (mode)= source[.., i, ..]`` with mode in
        set, add, multiply, max, min. ``source`` has the shape of ``index`` (which may be
        broadcast with stride 0) and the dtype of ``out``. Deterministic: duplicates
        combine in an order that depends on nothing else; of duplicates in "set" the last stays."""

    # -- random ------------------------------------------------------------------
    @abstractmethod
    def random(self, kind: str, shape: Sequence[int], dtype: np.dtype, seed: int, stream: int) -> Array:
        """Element i is a function of (seed, stream, i) alone: see ``gpugrad.backends.philox``.
        ``kind`` is uniform (floating, [0, 1)), normal (floating) or bits (int64)."""

    # -- windows -----------------------------------------------------------------
    @abstractmethod
    def fold(self, windows: Array, size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Array:
        """The adjoint of :meth:`windows`: ``[n, c, *out, *kernel]`` summed into
        ``[n, c, *size]``, each element's contributions in a fixed order."""

    @abstractmethod
    def max_pool(
        self, array: Array, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
    ) -> tuple[Array, Array]:
        """Largest element of each window of ``[n, c, *size]``, and its int64 position in the
        flattened ``size``; first of equals, NaN wins."""

    @abstractmethod
    def max_pool_grad(
        self,
        gradient: Array,
        index: Array,
        size: Sequence[int],
        kernel: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
    ) -> Array:
        """``[n, c, *size]``: at each element the sum, in a fixed order, of ``gradient``
        (``[n, c, *out]``) over the windows whose ``index`` names it."""

    # -- composed here; override where the device can do better ------------------
    def windows(self, array: Array, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Array:
        """View ``[n, c, *out, *kernel]`` of all windows of ``[n, c, *size]``."""
        shape, strides = layout.windows(array.shape, array.strides, kernel, stride, dilation)
        return self.as_strided(array, shape, strides, 0)

    def convolve(
        self,
        x: Array,
        weight: Array,
        stride: Sequence[int],
        dilation: Sequence[int],
        groups: int,
        dtype: np.dtype | None = None,
    ) -> Array:
        """Cross-correlation without padding: ``[n, c, *size]`` with
        ``[o, c/groups, *kernel]`` gives ``[n, o, *out]``. ``dtype`` as in :meth:`matmul`."""
        n, o = x.shape[0], weight.shape[0]
        columns, out = self._columns(x, weight.shape[2:], stride, dilation, groups)
        w = self._view(weight, (1, groups, o // groups, -1))
        w = self.as_strided(w, (n, *w.shape[1:]), (0, *w.strides[1:]), 0)
        return self._view(self.matmul(w, columns, dtype), (n, o, *out))

    def convolve_input_grad(
        self,
        gradient: Array,
        weight: Array,
        size: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
        groups: int,
        dtype: np.dtype | None = None,
    ) -> Array:
        """Adjoint of :meth:`convolve` in ``x``: ``[n, o, *out]`` gives ``[n, c, *size]``. ``dtype`` as in
        :meth:`matmul`."""
        n, o, *out = gradient.shape
        c, kernel = weight.shape[1] * groups, weight.shape[2:]
        w = self._view(weight, (1, groups, o // groups, -1))
        w = self.as_strided(w, (n, *w.shape[1:]), (0, *w.strides[1:]), 0)
        g = self._view(gradient, (n, groups, o // groups, -1))
        columns = self._view(self.matmul(w.transpose((0, 1, 3, 2)), g, _summing(g)), (n, c, *kernel, *out))
        s = len(kernel)
        order = (0, 1, *range(2 + s, 2 + 2 * s), *range(2, 2 + s))
        folded = self.fold(columns.transpose(order), size, stride, dilation)
        dtype = dtype or gradient.dtype
        return folded if folded.dtype == dtype else self.copy(folded, dtype)

    def convolve_weight_grad(
        self,
        gradient: Array,
        x: Array,
        kernel: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
        groups: int,
    ) -> Array:
        """Adjoint of :meth:`convolve` in ``weight``: gives ``[o, c/groups, *kernel]``."""
        n, o = gradient.shape[:2]
        columns, _ = self._columns(x, kernel, stride, dilation, groups)
        g = self._view(gradient, (n, groups, o // groups, -1))
        partial = self.matmul(g, columns.transpose((0, 1, 3, 2)), _summing(g))
        total = self.reduce("sum", partial, (0,), x.dtype)
        return self._view(total, (o, x.shape[1] // groups, *kernel))

    def nonzero(self, array: Array) -> Array:
        """int64 positions, in the flattened array, of the elements that are not zero."""
        flat = self._view(array, (array.size,))
        mask = self.copy(flat, np.dtype(bool))
        ones = self.copy(mask, np.dtype(np.int64))
        count = int(self.to_host(self.reduce("sum", ones, (0,), ones.dtype)))
        return self.sort(ones, 0, True)[1][:count]

    def factorize(self, kind: str, arrays: Sequence[Array], **params: Any) -> tuple[Array, ...]:
        """A factorization of batched float32 or float64 matrices, or a solution with one: ``ROUTINES`` in
        ``gpugrad/backends/factor.py`` says for each ``kind`` what it takes and returns. Raises ``LinAlgError``
        where an iteration does not converge.

        Here: computed on the host by NumPy, which is announced once per process, device type and kind with a
        ``HostTripWarning``."""
        from gpugrad.backends import factor

        factor.announce(self.name, kind)
        return self.factorize_on_host(kind, arrays, **params)

    def factorize_on_host(self, kind: str, arrays: Sequence[Array], **params: Any) -> tuple[Array, ...]:
        """:meth:`factorize` by NumPy, without a word."""
        from gpugrad.backends import factor

        results = factor.compute(kind, tuple(self.to_host(a) for a in arrays), **params)
        return tuple(self.from_host(r) for r in results)

    def offer(self, name: str) -> Callable[..., Any] | None:
        """A faster routine for the fused op ``name`` (``gpugrad/ops/fused.py`` states what
        each takes and returns), or None: the op is then composed of primitives."""
        return getattr(self, "fused_" + name, None)

    # -- helpers ------------------------------------------------------------------
    def _view(self, array: Array, shape: Sequence[int]) -> Array:
        """``array`` reshaped (one entry may be -1): a view if its strides allow, else a copy."""
        shape = layout.infer_shape(array.size, shape)
        strides = layout.view_strides(array.shape, array.strides, shape, array.itemsize)
        if strides is None:
            array = self.copy(array)
            strides = layout.contiguous_strides(shape, array.itemsize)
        return self.as_strided(array, shape, strides, 0)

    def _columns(
        self, x: Array, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], groups: int
    ) -> tuple[Array, tuple[int, ...]]:
        """im2col: ``[n, groups, c/groups * prod(kernel), prod(out)]`` and the sizes ``out``."""
        s = len(kernel)
        view = self.windows(x, kernel, stride, dilation)
        out = tuple(view.shape[2 : 2 + s])
        order = (0, 1, *range(2 + s, 2 + 2 * s), *range(2, 2 + s))
        n, c = x.shape[:2]
        depth = c // groups * int(np.prod(kernel, dtype=np.int64))
        columns = self.copy(view.transpose(order))
        return self._view(columns, (n, groups, depth, int(np.prod(out, dtype=np.int64)))), out


def _summing(array: Array) -> np.dtype | None:
    """In which dtype products of ``array`` are to be had that are added up further: None for its own."""
    return None if array.dtype.itemsize > 2 else np.dtype(np.float32)


class StridedArray:
    """An array over memory that only the device can reach: a buffer, a byte offset into
    it and a layout. Views share the buffer; ``owner`` (if any) keeps it alive."""

    __slots__ = ("buffer", "offset", "shape", "strides", "dtype", "size", "_contiguous", "__weakref__")

    def __init__(
        self,
        buffer: Any,
        offset: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        dtype: np.dtype,
        contiguous: bool | None = None,
    ) -> None:
        self.buffer = buffer
        self.offset = offset
        self.shape = shape
        self.strides = strides
        self.dtype = dtype
        size = 1
        for n in shape:
            size *= n
        self.size = size
        self._contiguous = contiguous

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie in C order without gaps."""
        if self._contiguous is None:
            self._contiguous = layout.is_contiguous(self.shape, self.strides, self.dtype.itemsize)
        return self._contiguous

    def view(self, shape: Sequence[int], strides: Sequence[int], offset: int) -> StridedArray:
        """The same buffer under another layout, ``offset`` bytes further on."""
        return type(self)(self.buffer, self.offset + offset, tuple(shape), tuple(strides), self.dtype)

    def transpose(self, axes: Sequence[int]) -> StridedArray:
        return self.view([self.shape[i] for i in axes], [self.strides[i] for i in axes], 0)

    def __getitem__(self, index: Any) -> StridedArray:
        """Basic indexing: integers, slices, ``...`` and None."""
        return self.view(*layout.basic_index(self.shape, self.strides, index))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.shape} {self.dtype}>"
