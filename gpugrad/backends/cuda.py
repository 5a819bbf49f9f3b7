"""The ``cuda`` backend: CuPy's part of what ``kernels.py`` leaves to the API, and cuBLAS for matrix products.

CuPy is imported at first use. Kernels are compiled with NVRTC from our own texts (contraction and flushing of
denormals off, so that results agree with the other devices) and kept as binaries in the user's cache folder.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import threading
from collections.abc import Callable, Sequence
from itertools import product
from time import perf_counter_ns
from typing import Any

import numpy as np

from gpugrad.backends.base import DeviceInfo, StridedArray, Timeline
from gpugrad.backends.cached_files import cache_folder, fetch_sealed, store_sealed
from gpugrad.backends.kernel_core import coalesce, elements
from gpugrad.backends.kernel_source import SHORT
from gpugrad.backends.kernels import KernelBackend
from gpugrad.backends.switches import matmul  # torch.backends.cuda.matmul
from gpugrad.errors import DeviceError, OutOfMemoryError

logger = logging.getLogger("gpugrad")

INSTALL = 'pip install "gpugrad[cuda13]" (or "gpugrad[cuda12]" for a CUDA 12 driver)'


def _cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        raise DeviceError(f"device cuda needs CuPy, which is not installed: {INSTALL}") from error
    return cupy


def _device_count(cupy: Any) -> int:
    """Raises DeviceError where there is no driver."""
    runtime = cupy.cuda.runtime
    try:
        return runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        raise DeviceError(f"no CUDA device was found ({error}): install NVIDIA's driver, or choose "
                          "another device (see python -m gpugrad devices)") from error  # fmt: skip


def enumerate_devices(probe: bool = False) -> list[DeviceInfo]:
    """Descriptions, in the order of device numbers; with ``probe`` each is made to compile and run a kernel and
    ``error`` says what went wrong. Raises DeviceError without CuPy or without a driver."""
    cupy = _cupy()
    described = []
    for i in range(_device_count(cupy)):
        info = _describe(cupy, i)
        if probe:
            try:
                CudaBackend(cupy, i)
            except DeviceError as error:
                info = info._replace(error=str(error))
        described.append(info)
    return described


def open(index: int = 0) -> CudaBackend:
    """The backend of device ``index``. Raises DeviceError: no such device, or one that cannot compile."""
    cupy = _cupy()
    count = _device_count(cupy)
    if not 0 <= index < count:
        there = f"this machine has cuda:0 to cuda:{count - 1}" if count else "this machine has none"
        raise DeviceError(f"device cuda:{index} does not exist: {there} (see python -m gpugrad devices)")
    return CudaBackend(cupy, index)


def _describe(cupy: Any, index: int) -> DeviceInfo:
    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(index)
    version = runtime.driverGetVersion()
    return DeviceInfo(
        name=properties["name"].decode(),
        kind="gpu",
        vendor="NVIDIA",
        memory=int(properties["totalGlobalMem"]),
        compute_units=int(properties["multiProcessorCount"]),
        driver=f"CUDA {version // 1000}.{version % 1000 // 10}",
        extra={"capability": f"{properties['major']}.{properties['minor']}"},
    )


class CudaBackend(KernelBackend):
    """One CUDA device, working on the legacy default stream, with a memory pool of its own."""

    name = "cuda"

    def __init__(self, cupy: Any, index: int) -> None:
        super().__init__(index, "cuda", cpu_shapes=False, fp64=True)
        self._info = _describe(cupy, index)
        self._cuda = cupy.cuda
        self._runtime = cupy.cuda.runtime
        self._use()
        self._pool = cupy.cuda.MemoryPool()
        self._used = _Used()
        self._counted = _counted_pointer(cupy)
        self._by_value: dict[int, np.dtype] = {}
        self._blas = self._load_cublas(cupy)
        self.tensor_cores = int(cupy.cuda.Device(index).compute_capability) >= 80
        try:
            probe = self.to_host(self.arange(3, 0, 1, np.dtype(np.int64)))
        except (ImportError, RuntimeError) as error:
            raise DeviceError(f"cuda:{index} ({self._info.name}) cannot run kernels: {error}. The CUDA libraries come "
                              f"with {INSTALL}") from error  # fmt: skip
        if probe.tolist() != [0, 1, 2]:
            raise DeviceError(f"cuda:{index} ({self._info.name}) computes wrong results: check the driver")

    def _load_cublas(self, cupy: Any) -> Any:
        """What a product needs of cuBLAS, or None where the library is missing."""
        try:
            blas = cupy.cuda.cublas
        except ImportError as error:
            logger.warning("gpugrad: cuBLAS is missing, matrix products will be slow: %s (%s)", INSTALL, error)
            return None
        one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
        one64, zero64 = np.ones(1, np.float64), np.zeros(1, np.float64)
        runtime = self._runtime
        single = (blas.CUBLAS_COMPUTE_32F, one, zero)
        return blas, {
            "f16": (runtime.CUDA_R_16F, *single),
            "bf16": (runtime.CUDA_R_16BF, *single),
            "f32": (runtime.CUDA_R_32F, *single),
            "f32 high": (runtime.CUDA_R_32F, blas.CUBLAS_COMPUTE_32F_FAST_TF32, one, zero),
            "f32 medium": (runtime.CUDA_R_32F, blas.CUBLAS_COMPUTE_32F_FAST_16BF, one, zero),
            "f64": (runtime.CUDA_R_64F, blas.CUBLAS_COMPUTE_64F, one64, zero64),
        }

    def _use(self) -> None:
        """Make this device the current one of the calling thread."""
        if self._runtime.getDevice() != self.index:
            self._runtime.setDevice(self.index)

    def info(self) -> DeviceInfo:
        return self._info

    # -- memory ---------------------------------------------------------------
    def _allocate(self, nbytes: int) -> Any:
        self._use()
        try:
            memory = self._pool.malloc(nbytes)
        except self._cuda.memory.OutOfMemoryError:
            memory = self._allocate_again(nbytes)
        return self._counted(memory, self._used)

    def _size_of(self, buffer: Any) -> int:
        return int(buffer.mem.size)

    def _allocate_again(self, nbytes: int) -> Any:
        """After giving back what the pool holds unused."""
        self._finish()
        self._pool.free_all_blocks()
        try:
            return self._pool.malloc(nbytes)
        except self._cuda.memory.OutOfMemoryError as error:
            stats = self.memory_stats()
            free, total = self._runtime.memGetInfo()
            raise OutOfMemoryError(
                f"cuda:{self.index} ({self._info.name}) cannot allocate {nbytes:,} bytes: {stats['allocated']:,} bytes "
                f"are in use, {stats['reserved'] - stats['allocated']:,} more are held by the pool, which was emptied "
                f"before trying again, and {free:,} of the device's {total:,} are free; use smaller batches, or free "
                "what is not needed"
            ) from error

    def memory_stats(self) -> dict[str, int]:
        used = self._used
        return {"allocated": used.now, "peak": used.peak, "reserved": self._pool.total_bytes()}

    def reset_peak_memory_stats(self) -> None:
        self._used.peak = self._used.now

    def release_cached(self) -> None:
        self._finish()
        self._pool.free_all_blocks()

    def export(self, array: StridedArray) -> Any:
        """As a CuPy array, which also has ``__cuda_array_interface__``."""
        cupy = _cupy()
        self._use()
        memory = self._cuda.UnownedMemory(
            array.buffer.ptr, array.offset + _reach(array.shape, array.strides, array.itemsize), array, self.index
        )
        pointer = self._cuda.MemoryPointer(memory, array.offset)
        return cupy.ndarray(array.shape, array.dtype, pointer, array.strides)

    def address(self, array: StridedArray) -> int:
        return int(array.buffer.ptr) + array.offset

    def adopt(self, foreign: Any) -> StridedArray:
        self._use()
        theirs = _cupy().from_dlpack(foreign)
        return StridedArray(theirs.data, 0, theirs.shape, theirs.strides, theirs.dtype)

    def _write(self, buffer: Any, data: np.ndarray) -> None:
        self._use()
        runtime = self._runtime
        runtime.memcpy(buffer.ptr, data.ctypes.data, data.nbytes, runtime.memcpyHostToDevice)

    def _read(self, buffer: Any, offset: int, data: np.ndarray) -> None:
        self._use()
        runtime = self._runtime
        runtime.memcpy(data.ctypes.data, buffer.ptr + offset, data.nbytes, runtime.memcpyDeviceToHost)

    def _finish(self) -> None:
        self._use()
        self._runtime.deviceSynchronize()

    def timeline(self) -> Timeline:
        return _EventTimeline(self)

    # -- kernels --------------------------------------------------------------
    def _compile(self, source: str, fuse: bool, double: bool) -> Any:
        nvrtc = self._cuda.nvrtc
        capability = int(self._info.extra["capability"].replace(".", ""))
        supported = nvrtc.getSupportedArchs()
        native = capability in supported
        # A device newer than this NVRTC gets PTX, which its driver finishes compiling.
        target = f"sm_{capability}" if native else f"compute_{max(a for a in supported if a < capability)}"
        options = (f"-arch={target}", "-std=c++17", f"-fmad={'true' if fuse else 'false'}", "-ftz=false",
                   "-prec-div=true", "-prec-sqrt=true")  # fmt: skip
        key = repr((source, options, nvrtc.getVersion())).encode()
        path = cache_folder() / "cuda" / f"{hashlib.sha256(key).hexdigest()}.cubin"
        code = fetch_sealed(path)
        if code is None:
            code = self._nvrtc(nvrtc, source, options, native)
            store_sealed(path, code)
        self._use()
        module = self._cuda.function.Module()
        module.load(code)
        return module

    def _nvrtc(self, nvrtc: Any, source: str, options: tuple[str, ...], native: bool) -> bytes:
        program = nvrtc.createProgram(source, "gpugrad.cu", (), ())
        try:
            nvrtc.compileProgram(program, options)
            return nvrtc.getCUBIN(program) if native else nvrtc.getPTX(program)
        except nvrtc.NVRTCError as error:
            log = nvrtc.getProgramLog(program)
            raise DeviceError(f"cuda:{self.index} ({self._info.name}) refused a kernel: {error}\n{log}") from error
        finally:
            nvrtc.destroyProgram(program)

    def _get_kernel(self, program: Any, name: str, local: int) -> Any:
        return program.get_function(name), (local,)

    def _launch(self, kernel: Any, groups: int, *args: Any) -> None:
        self._use()
        function, block = kernel
        function((groups,), block, [self._value(a) if type(a) is bytes else a for a in args])

    def replay(self, launches: Sequence[tuple[Any, int, Sequence[Any]]]) -> Callable[[], None]:
        """As in the base class, as one CUDA graph where there is more than one launch."""
        if len(launches) < 2:
            return super().replay(launches)
        self._use()
        # The default stream cannot be captured. A graph launched into it keeps the order of all that is queued there.
        stream = self._cuda.Stream()
        with stream:
            stream.begin_capture()
            try:
                for kernel, groups, args in launches:
                    self._launch(kernel, groups, *args)
            finally:
                graph = stream.end_capture()
        kept = [args for _, _, args in launches]  # a graph does not hold the memory that it uses

        def queue() -> None:
            self._run_graph(graph)

        queue.kept = kept  # type: ignore[attr-defined]
        return queue

    def _run_graph(self, graph: Any) -> None:
        self._use()
        graph.launch(self._cuda.Stream.null)

    def _value(self, data: bytes) -> np.ndarray:
        """Bytes as the one-element array that CuPy passes by value."""
        dtype = self._by_value.get(len(data))
        if dtype is None:
            dtype = self._by_value[len(data)] = np.dtype(f"V{len(data)}")
        return np.frombuffer(data, dtype)

    # -- products ---------------------------------------------------------------
    def matmul(self, a: StridedArray, b: StridedArray, dtype: np.dtype | None = None) -> StridedArray:
        """By cuBLAS, which thinks in columns: the product of the transposes, taken in the other order."""
        if self._blas is None or SHORT[a.dtype] not in self._blas[1] or 0 in a.shape or 0 in b.shape:
            return super().matmul(a, b, dtype)
        *batch, m, k = a.shape
        n = b.shape[-1]
        left, right = _blas_layout(m, k, a), _blas_layout(k, n, b)
        if left is None:
            return self.matmul(self.copy(a), b, dtype)
        if right is None:
            return self.matmul(a, self.copy(b), dtype)
        result = self.empty((*batch, m, n), dtype or a.dtype)
        size = a.itemsize
        shape, (a_steps, b_steps) = coalesce(batch, elements(a.strides[:-2], size), elements(b.strides[:-2], size))
        blas, types = self._blas
        name = SHORT[a.dtype]
        if name == "f32" and matmul.float32_precision != "highest":
            name = f"f32 {matmul.float32_precision}"
        given, compute, one, zero = types[name]
        stored = types[SHORT[result.dtype]][0]
        self._use()
        handle = self._cuda.device.get_cublas_handle()
        a_pointer, b_pointer, target = a.buffer.ptr + a.offset, b.buffer.ptr + b.offset, result.buffer.ptr
        count, step = shape[-1], m * n
        for number, outer in enumerate(product(*(range(s) for s in shape[:-1]))):
            a_at = sum(i * s for i, s in zip(outer, a_steps, strict=False)) * size
            b_at = sum(i * s for i, s in zip(outer, b_steps, strict=False)) * size
            blas.gemmStridedBatchedEx(
                handle, right[0], left[0], n, m, k, one.ctypes.data,
                b_pointer + b_at, given, right[1], b_steps[-1],
                a_pointer + a_at, given, left[1], a_steps[-1], zero.ctypes.data,
                target + number * count * step * result.itemsize, stored, n, step, count, compute,
                blas.CUBLAS_GEMM_DEFAULT,
            )  # fmt: skip
        if self.sync:
            self._finish()
        return result

    # -- factorizations ---------------------------------------------------------
    def factorize(self, kind: str, arrays: Sequence[StridedArray], **params: Any) -> tuple[StridedArray, ...]:
        """By CuPy, which calls cuBLAS and cuSOLVER. The kinds that it has not go through the host, announced; matrices
        of no elements and those that fail do so silently, for NumPy to tell which pivot failed."""
        if kind not in _FACTORIZE:
            return super().factorize(kind, arrays, **params)
        if all(a.size for a in arrays):
            import cupyx

            dense = [self.export(self.copy(a)) for a in arrays]
            try:
                with cupyx.errstate(linalg="raise"):
                    results = self._routine(kind, *dense, **params)
            except np.linalg.LinAlgError as error:
                logger.debug("gpugrad: %s on cuda:%d: %s", kind, self.index, error)
            else:
                return tuple(self._taken(r) for r in results)
        return self.factorize_on_host(kind, arrays, **params)

    def _routine(self, kind: str, *dense: Any, **params: Any) -> tuple[Any, ...]:
        return _FACTORIZE[kind](_cupy(), *dense, **params)

    def _taken(self, theirs: Any) -> StridedArray:
        """A CuPy array copied into memory of our pool."""
        ours = self.empty(theirs.shape, theirs.dtype)
        if ours.size:
            self.export(ours)[...] = theirs
        return ours


class _Used:
    """Bytes of a device's pool that arrays hold, and the most they held. The pool itself adds up its blocks one by one
    when it is asked, and knows no peak."""

    def __init__(self) -> None:
        self.now = 0
        self.peak = 0
        # Re-entrant: the collector may free a block, and so come here, while this thread is inside.
        self._lock = threading.RLock()

    def add(self, nbytes: int) -> None:
        with self._lock:
            self.now += nbytes
            if self.now > self.peak:
                self.peak = self.now


@functools.cache
def _counted_pointer(cupy: Any) -> Any:
    """CuPy's pointer to memory, counted as long as it lives."""

    class CountedPointer(cupy.cuda.MemoryPointer):
        def __init__(self, memory: Any, used: _Used) -> None:
            super().__init__(memory.mem, 0)
            self.used = used
            used.add(memory.mem.size)

        def __del__(self) -> None:
            self.used.add(-self.mem.size)

    return CountedPointer


class _EventTimeline(Timeline):
    """A pair of events around everything that is queued: launches, copies, cuBLAS's products, CuPy's routines.

    The methods that queue are replaced while this is open. Between the two events lies what the driver takes for the
    launch itself where the device had nothing else to do: some microseconds for each."""

    concurrent = False

    def __init__(self, backend: CudaBackend) -> None:
        self._backend = backend
        self._cuda = backend._cuda
        self._local = threading.local()
        self._begin = self._record()
        self._begin.synchronize()
        self._origin = perf_counter_ns()
        self._blas = backend._blas
        for name in ("_launch", "_run_graph", "_read", "_write", "_routine"):
            setattr(backend, name, self._noting(getattr(backend, name)))
        if self._blas is not None:
            library, types = self._blas
            backend._blas = _NotingBlas(library, self._noting(library.gemmStridedBatchedEx)), types

    def _record(self) -> Any:
        """An event in the stream that everything here goes to."""
        self._backend._use()
        event = self._cuda.Event()
        event.record(self._cuda.Stream.null)
        return event

    def _noting(self, queue: Callable[..., Any]) -> Callable[..., Any]:
        local = self._local

        def noting(*args: Any, **options: Any) -> Any:
            mark = getattr(local, "mark", None)
            if mark is None:
                return queue(*args, **options)
            begin = self._record()
            result = queue(*args, **options)
            mark.append((begin, self._record()))
            return result

        return noting

    def start(self) -> list[Any]:
        mark: list[Any] = []
        self._local.mark = mark
        return mark

    def stop(self, mark: Any) -> None:
        self._local.mark = None

    def spans(self, mark: Any) -> list[tuple[int, int]]:
        elapsed = self._cuda.get_elapsed_time  # milliseconds
        found = []
        for begin, end in mark:
            end.synchronize()
            at = self._origin + round(elapsed(self._begin, begin) * 1e6)
            found.append((at, at + round(elapsed(begin, end) * 1e6)))
        return found

    def close(self) -> None:
        for name in ("_launch", "_run_graph", "_read", "_write", "_routine"):
            delattr(self._backend, name)
        self._backend._blas = self._blas


class _NotingBlas:
    """cuBLAS with the product replaced."""

    def __init__(self, library: Any, product: Callable[..., Any]) -> None:
        self._library = library
        self.gemmStridedBatchedEx = product

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)


def _with_info(cupy: Any, a: Any, result: Any) -> tuple[Any, Any]:
    """A failure has been raised before: info is 0."""
    return result, cupy.zeros(a.shape[:-2], np.int32)


def _determinant(cupy: Any, a: Any) -> tuple[Any]:
    sign, logarithm = cupy.linalg.slogdet(a)
    return (sign * cupy.exp(logarithm),)


def _triangular(cupy: Any, a: Any, b: Any, upper: bool, unit: bool) -> tuple[Any]:
    from cupyx.scipy.linalg import solve_triangular

    return (solve_triangular(a, b, lower=not upper, unit_diagonal=unit),)


#: the kinds of gpugrad/backends/factor.py that CuPy has for batches of any shape; not "eig", "geqrf", "ldl", "lu"
_FACTORIZE: dict[str, Callable[..., tuple[Any, ...]]] = {
    "cholesky": lambda cupy, a: _with_info(cupy, a, cupy.linalg.cholesky(a)),
    "det": _determinant,
    "eigh": lambda cupy, a, upper: tuple(cupy.linalg.eigh(a, "U" if upper else "L")),
    "eigvalsh": lambda cupy, a, upper: (cupy.linalg.eigvalsh(a, "U" if upper else "L"),),
    "inv": lambda cupy, a: _with_info(cupy, a, cupy.linalg.inv(a)),
    "qr": lambda cupy, a, complete: tuple(cupy.linalg.qr(a, "complete" if complete else "reduced")),
    "slogdet": lambda cupy, a: tuple(reversed(cupy.linalg.slogdet(a))),
    "solve": lambda cupy, a, b: _with_info(cupy, a, cupy.linalg.solve(a, b)),
    "svd": lambda cupy, a, full: tuple(cupy.linalg.svd(a, full)),
    "svdvals": lambda cupy, a: (cupy.linalg.svd(a, compute_uv=False),),
    "triangular": _triangular,
}


def _reach(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> int:
    """Bytes from the first element to the end of the last, for strides that do not run backwards."""
    return sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + itemsize if 0 not in shape else 0


def _blas_layout(rows: int, columns: int, array: StridedArray) -> tuple[int, int] | None:
    """cuBLAS's operation (0 none, 1 transpose) and leading dimension for a row-major matrix, or None where neither
    its rows nor its columns are contiguous or a batch runs backwards."""
    row, column = elements(array.strides[-2:], array.itemsize)
    if any(s < 0 for s in array.strides):
        return None
    if (column == 1 or columns == 1) and (row >= columns or rows == 1):
        return 0, max(row if rows > 1 else columns, 1)
    if (row == 1 or rows == 1) and (column >= rows or columns == 1):
        return 1, max(column if columns > 1 else rows, 1)
    return None
