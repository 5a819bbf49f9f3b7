"""The floor of the kernel backends: memory, kernels and their cache, launch plans, error flags, layouts.

A device API provides the methods under "what an API provides" below; ``kernels.py`` and the other ``kernel_*.py`` build
the contract's methods on this.

A *plan* is everything about a launch that follows from dtypes, shapes and strides: kernel, grid, packed arguments
and the layout of the result. Plans are cached, so that a repeated call costs a dictionary look-up, an allocation
and the launch.
"""

from __future__ import annotations

import os
import struct
import threading
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpugrad import layout
from gpugrad.backends import kernel_source
from gpugrad.backends.base import Backend, Scalar, StridedArray
from gpugrad.backends.kernel_source import SHORT, Specialization, compute_type, struct_code

MAX_DIMS = 8  # of a strided kernel argument, after merging dimensions
_MAX_PLANS = 8192
_INT32_MAX = 2**31 - 1
_BOOL = np.dtype(bool)
_LETTERS = "abcdefgh"
Strides = tuple[int, ...]


def _no_scalars(value: Any) -> bytes:
    raise TypeError("this launch takes no scalars")


class Plan:
    """A launch that only lacks its buffers: see the module's docstring."""

    __slots__ = ("kernel", "groups", "params", "shape", "strides", "dtype", "nbytes", "pack", "flag")

    def __init__(self, kernel: Any, groups: int, params: bytes) -> None:
        self.kernel = kernel
        self.groups = groups
        self.params = params
        self.shape: tuple[int, ...] = ()
        self.strides: Strides = ()
        self.dtype: Any = None
        self.nbytes = 0
        self.pack: Callable[[Any], bytes] = _no_scalars
        self.flag: bytes | None = None

    def result(self, shape: Sequence[int], dtype: np.dtype, strides: Strides | None = None) -> Plan:
        """Say what the launch allocates for its result."""
        self.shape = tuple(shape)
        self.dtype = dtype
        self.strides = layout.contiguous_strides(shape, dtype.itemsize) if strides is None else strides
        self.nbytes = int(np.prod(self.shape, dtype=np.int64)) * dtype.itemsize
        return self


class KernelCore(Backend):
    """Memory, kernels and plans; the base of the operations."""

    array_type: type[StridedArray] = StridedArray
    lowering = "launches"
    sync = False  # whether each launch is waited for: GPUGRAD_SYNC=1

    def __init__(self, index: int, dialect: str, cpu_shapes: bool, fp64: bool, max_group: int = 256) -> None:
        self.index = index
        self.dialect = dialect
        self.cpu_shapes = cpu_shapes
        self.fp64 = fp64
        self.vector_bytes = 64  # of the widest vector that arithmetic takes, on CPU-type devices
        self.shape = kernel_source.launch_shape(cpu_shapes, max_group)
        self.force_wide = bool(os.environ.get("GPUGRAD_INDEX64"))  # 64-bit index arithmetic everywhere, for tests
        self._common = kernel_source.common_defines(self.shape, fp64)
        self._plans: dict[Any, Any] = {}
        self._kernels: dict[Any, Any] = {}
        self._programs: dict[Specialization, Any] = {}
        self._compile_lock = threading.RLock()
        self._messages: dict[Any, int] = {}
        self._flags: Any = None
        self._unread = False
        self.sync = os.environ.get("GPUGRAD_SYNC", "0") not in ("", "0")
        if self.sync:
            self._wait_for_launches()

    def _wait_for_launches(self) -> None:
        """From now on the host waits for each launch, so that what goes wrong on the device is raised by the operation
        that did it, and not by the next one that reads a value back."""
        launch = self._launch

        def launch_and_wait(kernel: Any, groups: int, *args: Any) -> None:
            launch(kernel, groups, *args)
            self.synchronize()

        self._launch = launch_and_wait  # type: ignore[method-assign]
        self.replay = KernelCore.replay.__get__(self)  # type: ignore[method-assign]

    # -- what an API provides ---------------------------------------------------
    @abstractmethod
    def _allocate(self, nbytes: int) -> Any:
        """A buffer of at least ``nbytes`` > 0. Raises OutOfMemoryError."""

    @abstractmethod
    def _write(self, buffer: Any, data: np.ndarray) -> None:
        """Copy a contiguous array of bytes to the start of ``buffer``; ``data`` may be reused at once."""

    @abstractmethod
    def _read(self, buffer: Any, offset: int, data: np.ndarray) -> None:
        """Copy from ``offset`` of ``buffer`` into a contiguous array of bytes, and wait."""

    @abstractmethod
    def _finish(self) -> None:
        """Wait for all queued work."""

    @abstractmethod
    def _compile(self, source: str, fuse: bool, double: bool) -> Any:
        """A program; ``fuse`` allows fused multiply-adds, ``double`` is whether it computes in double precision."""

    @abstractmethod
    def _get_kernel(self, program: Any, name: str, local: int) -> Any:
        """What :meth:`_launch` takes, with groups of ``local`` items."""

    @abstractmethod
    def _launch(self, kernel: Any, groups: int, *args: Any) -> None:
        """Queue ``groups`` groups; an argument is a buffer, or bytes that are passed by value."""

    def replay(self, launches: Sequence[tuple[Any, int, Sequence[Any]]]) -> Callable[[], None]:
        """A function that queues ``launches``, each the arguments of :meth:`_launch`, any number of times."""

        def queue() -> None:
            for kernel, groups, args in launches:
                self._launch(kernel, groups, *args)

        return queue

    # -- kernels ------------------------------------------------------------------
    def kernel(
        self, family: str, defines: dict[str, Any], name: str, names: Sequence[str], local: int | None = None
    ) -> Any:
        """The kernel ``name`` of a specialisation whose program holds the kernels ``names``."""
        specialization = Specialization(family, tuple((k, str(v)) for k, v in defines.items()), tuple(names))
        key = (specialization, name)
        kernel = self._kernels.get(key)
        if kernel is None:
            with self._compile_lock:
                program = self._programs.get(specialization)
                if program is None:
                    path = os.environ.get("GPUGRAD_RECORD_KERNELS")
                    if path:
                        kernel_source.record(specialization, path)
                    source = kernel_source.assemble(specialization, self.dialect, self._common)
                    program = self._programs[specialization] = self._compile(
                        source, "GG_CONTRACT" in defines, "T_f64" in defines
                    )
                kernel = self._get_kernel(program, name, self.shape["LOCAL_SIZE"] if local is None else local)
                self._kernels[key] = kernel
        return kernel

    def _remember(self, key: Any, plan: Any) -> Any:
        if len(self._plans) >= _MAX_PLANS:
            self._plans.clear()
        self._plans[key] = plan
        return plan

    def _groups(self, items: int, local: int | None = None) -> int:
        return -(-items // (local or self.shape["LOCAL_SIZE"]))

    # -- error flags ----------------------------------------------------------------
    def _message(self, error: type[Exception], text: str) -> bytes:
        """The number that a checking kernel reports; ``{value}`` in ``text`` is what it found, and
        ``{second}`` the other number that it reports."""
        return struct.pack("=i", self._messages.setdefault((error, text), len(self._messages) + 1))

    def _flag_buffer(self) -> Any:
        """The flag word, for a checking launch that is about to be queued."""
        if self._flags is None:
            self._flags = self._allocate(32)
            self._write(self._flags, np.zeros(32, np.uint8))
        self._unread = True
        return self._flags

    def _raise_flagged(self) -> None:
        """Raise what a kernel reported since the last time, and clear it."""
        if not self._unread:
            return
        self._unread = False
        found = np.zeros(4, np.int64)
        self._read(self._flags, 0, found.view(np.uint8))
        number = int(found[0])
        if number:
            self._write(self._flags, np.zeros(32, np.uint8))
            error, text = next(key for key, value in self._messages.items() if value == number)
            raise error(text.format(value=int(found[1]), second=int(found[2])))

    # -- memory -----------------------------------------------------------------------
    def supports(self, dtype: np.dtype) -> bool:
        return dtype in SHORT and (self.fp64 or dtype != np.float64)

    def empty(self, shape: Sequence[int], dtype: np.dtype) -> StridedArray:
        dtype = np.dtype(dtype)
        shape = tuple(shape)
        strides = layout.contiguous_strides(shape, dtype.itemsize)
        size = 1
        for n in shape:
            size *= n
        return self.array_type(self._allocate(size * dtype.itemsize or 1), 0, shape, strides, dtype, True)

    def _result(self, plan: Plan) -> StridedArray:
        """The array that a plan's launch fills."""
        return self.array_type(self._allocate(plan.nbytes or 1), 0, plan.shape, plan.strides, plan.dtype)

    def from_host(self, array: np.ndarray) -> StridedArray:
        result = self.empty(array.shape, array.dtype)
        if array.size:
            self._write(result.buffer, np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        return result

    def to_host(self, array: StridedArray) -> np.ndarray:
        result = np.empty(array.shape, array.dtype)
        if array.size:
            if not array.is_contiguous:
                array = self.copy(array)
            self._read(array.buffer, array.offset, result.reshape(-1).view(np.uint8))
        self._raise_flagged()
        return result

    def as_strided(
        self, array: StridedArray, shape: Sequence[int], strides: Sequence[int], offset: int
    ) -> StridedArray:
        return array.view(shape, strides, offset)

    def extent(self, array: StridedArray) -> tuple[Any, int, int]:
        return array.buffer, array.offset, self._size_of(array.buffer)

    def _size_of(self, buffer: Any) -> int:
        """Bytes of a buffer."""
        return int(buffer.size)

    def synchronize(self) -> None:
        self._finish()
        self._raise_flagged()

    def full(self, shape: Sequence[int], value: Scalar, dtype: np.dtype) -> StridedArray:
        """A new array with every element ``value``."""
        result = self.empty(shape, dtype)
        self.fill(result, value)
        return result

    def _clear_of(self, x: StridedArray, out: StridedArray) -> StridedArray:
        """``x``, or a copy of it where writing ``out`` would change elements of ``x`` still to be read."""
        if x.buffer is not out.buffer:
            return x
        if x.offset == out.offset and x.strides == out.strides and x.shape == out.shape and x.itemsize == out.itemsize:
            return x
        low, high = layout.byte_range(x.shape, x.strides, x.itemsize)
        first, last = layout.byte_range(out.shape, out.strides, out.itemsize)
        if x.offset + high <= out.offset + first or out.offset + last <= x.offset + low:
            return x
        return self.copy(x)

    # -- layouts -------------------------------------------------------------------------
    def _index_type(self, layouts: Sequence[tuple[Sequence[int], Sequence[int], int, int]]) -> tuple[str, str]:
        """C type and struct letter of index arithmetic that reaches all of ``layouts``, each of shape, strides,
        offset (all in bytes but the shape) and itemsize."""
        wide = self.force_wide
        for shape, strides, offset, itemsize in layouts:
            reach = max(offset // itemsize, 1)
            count = 1
            for n, s in zip(shape, strides, strict=True):
                reach += abs(s) // itemsize * (n - 1) if n else 0
                count *= n
            # Grids are rounded up to whole groups, so leave room above the last index.
            wide = wide or reach + 65536 > _INT32_MAX or count + 65536 > _INT32_MAX
        return ("i64", "q") if wide else ("i32", "i")


def coalesce(shape: Sequence[int], *strides: Sequence[int]) -> tuple[list[int], list[list[int]]]:
    """Merge neighbouring dimensions wherever every operand's strides allow. At least one dimension remains."""
    sizes: list[int] = []
    steps: list[list[int]] = [[] for _ in strides]
    for axis, n in enumerate(shape):
        if n == 1:
            continue
        if sizes and all(s[-1] == given[axis] * n for s, given in zip(steps, strides, strict=True)):
            sizes[-1] *= n
            for s, given in zip(steps, strides, strict=True):
                s[-1] = given[axis]
        else:
            sizes.append(n)
            for s, given in zip(steps, strides, strict=True):
                s.append(given[axis])
    if not sizes:
        return [1], [[0] for _ in strides]
    return sizes, steps


def elements(strides: Sequence[int], itemsize: int) -> list[int]:
    """Byte strides in elements."""
    return [s // itemsize for s in strides]


def pad(values: Sequence[int], fill: int = 0) -> list[int]:
    """``values`` filled up to the eight dimensions of a kernel argument."""
    return [*values, *([fill] * (MAX_DIMS - len(values)))]


def dense_order(shape: Sequence[int], strides: Sequence[int], itemsize: int) -> bool:
    """Whether the elements lie without gaps or overlap in some order of the dimensions."""
    step = itemsize
    for s, n in sorted((s, n) for n, s in zip(shape, strides, strict=True) if n != 1):
        if s != step:
            return False
        step *= n
    return True


def scalar_packer(short: str) -> Callable[[Any], bytes]:
    """Packs a Python number as the computing type of a dtype, wrapping integers as a cast does."""
    code = "=" + struct_code(short)
    if short == "bool":
        return lambda value: b"\x01" if value else b"\x00"
    if "f" in short:
        dtype = np.dtype(np.float64 if short == "f64" else np.float32)
        pack = struct.Struct(code).pack

        def pack_float(value: Any) -> bytes:
            try:
                return pack(value)
            except OverflowError:  # larger than float32 holds: infinity, as a cast gives
                with np.errstate(over="ignore"):
                    return np.float64(value).astype(dtype).tobytes()

        return pack_float
    size = struct.calcsize(code)
    mask = (1 << 8 * size) - 1
    return lambda value: (int(value) & mask).to_bytes(size, "little")


def reduction(kind: str, short: str) -> tuple[str, str]:
    """How two partial results join, and the neutral value to start from, in the type T of a dtype."""
    t = compute_type(short)
    if kind in ("any", "all"):
        return ("((a) | (b))", "0") if kind == "any" else ("((a) & (b))", "1")
    if kind in ("sum", "prod"):
        return ("((a) + (b))", "0") if kind == "sum" else ("((a) * (b))", "1")
    join = "GG_MAX(a, b)" if kind == "max" else "GG_MIN(a, b)"
    if "f" in t:
        return join, "-GG_INF" if kind == "max" else "GG_INF"
    bits = int(t.lstrip("iu"))
    if t.startswith("u"):
        return join, "((T)0)" if kind == "max" else f"((T)0x{(1 << bits) - 1:x})"
    largest = f"((T)0x{(1 << (bits - 1)) - 1:x})"
    return join, f"((T)(-{largest} - 1))" if kind == "max" else largest
