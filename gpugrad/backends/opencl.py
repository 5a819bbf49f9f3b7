"""The ``opencl`` backend: PyOpenCL's part of what ``kernels.py`` leaves to the API.

PyOpenCL is imported at first use. Every device of every platform is listed, GPUs first, then accelerators, then
CPUs; a context is made only for the device that is opened.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import Any

import numpy as np

from gpugrad.backends.base import DeviceInfo, StridedArray, Timeline
from gpugrad.backends.kernels import KernelBackend
from gpugrad.errors import DeviceError, OutOfMemoryError

INSTALL = 'pip install "gpugrad[opencl]"'
_PROBE = "__kernel void gg_probe(__global int *out) { out[get_global_id(0)] = (int)get_global_id(0); }"


def _pyopencl() -> Any:
    try:
        import pyopencl
    except ImportError as error:
        raise DeviceError(f"device opencl needs PyOpenCL, which is not installed: {INSTALL}") from error
    return pyopencl


def _devices() -> list[Any]:
    """All devices of all platforms, in the order of their numbers."""
    cl = _pyopencl()
    try:
        platforms = cl.get_platforms()
    except cl.Error:  # the loader reports the absence of any platform as an error
        platforms = []
    found = []
    for platform in platforms:
        try:
            found += platform.get_devices()
        except cl.Error:  # a driver without a device says so by failing
            continue
    kind = cl.device_type
    return sorted(found, key=lambda d: 0 if d.type & kind.GPU else 1 if d.type & kind.ACCELERATOR else 2)


def enumerate_devices(probe: bool = False) -> list[DeviceInfo]:
    """Descriptions, in the order of device numbers. With ``probe`` each is made to compile and run a kernel, and
    ``error`` says what the driver complained of. Raises DeviceError without PyOpenCL."""
    cl = _pyopencl()
    described = []
    for device in _devices():
        info = _describe(cl, device)
        if probe:
            try:
                _probe(cl, cl.Context([device]), device)
            except DeviceError as error:
                info = info._replace(error=str(error))
        described.append(info)
    return described


def open(index: int = 0, cpu_shapes: bool | None = None) -> OpenCLBackend:
    """The backend of device ``index``. ``cpu_shapes`` chooses between the launch shapes for CPUs and those for GPUs
    (by default what the device is). Raises DeviceError: no such device, or one that cannot compile."""
    cl = _pyopencl()
    devices = _devices()
    if not devices:
        raise DeviceError(
            "no OpenCL device was found: install the driver of your GPU, or a CPU one with "
            f"{INSTALL} (on Debian and Ubuntu also: apt install pocl-opencl-icd)"
        )
    if not 0 <= index < len(devices):
        raise DeviceError(
            f"device opencl:{index} does not exist: this machine has opencl:0 to "
            f"opencl:{len(devices) - 1} (see python -m gpugrad devices)"
        )
    return OpenCLBackend(cl, devices[index], index, cpu_shapes)


def _describe(cl: Any, device: Any) -> DeviceInfo:
    kind = cl.device_type
    extensions = device.extensions.split()
    return DeviceInfo(
        name=device.name.strip(),
        kind="gpu" if device.type & kind.GPU else "cpu" if device.type & kind.CPU else "accelerator",
        vendor=device.vendor.strip(),
        memory=int(device.global_mem_size),
        compute_units=int(device.max_compute_units),
        fp16="cl_khr_fp16" in extensions,
        fp64="cl_khr_fp64" in extensions,
        driver=device.driver_version.strip(),
        extra={"platform": device.platform.name.strip(), "version": device.version.strip()},
    )


def _probe(cl: Any, context: Any, device: Any) -> None:
    """Compile and run a trivial kernel: some drivers are listed and then fail at everything."""
    try:
        queue = cl.CommandQueue(context, device)
        buffer = cl.Buffer(context, cl.mem_flags.READ_WRITE, 256)
        program = _build(cl, cl.Program(context, _PROBE), [])
        kernel = cl.Kernel(program, "gg_probe")
        kernel.set_arg(0, buffer)
        cl.enqueue_nd_range_kernel(queue, kernel, (64,), (64,))
        result = np.zeros(64, np.int32)
        cl.enqueue_copy(queue, result, buffer)
        reason = "" if (result == np.arange(64)).all() else "it computes wrong results"
    except (cl.Error, cl.RuntimeError) as error:
        reason = _gist(str(error))
    if reason:
        raise DeviceError(
            f"OpenCL device {device.name.strip()!r} of platform {device.platform.name.strip()!r} "
            f"({device.version.strip()}) cannot run kernels: {reason}. Choose another device, or install another "
            "driver (for CPUs on Debian and Ubuntu: apt install pocl-opencl-icd)"
        )


def _build(cl: Any, program: Any, options: list[str]) -> Any:
    """Compiled. Some drivers log on success too, of which PyOpenCL would warn; what fails raises with its log."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cl.CompilerWarning)
        return program.build(options, cache_dir=False)


def _gist(message: str) -> str:
    """The line of a driver's log that says what is wrong."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return next((line for line in lines if "error:" in line), lines[0] if lines else "no reason given")[:300]


class OpenCLBackend(KernelBackend):
    """One OpenCL device: a context, an in-order queue and a memory pool."""

    name = "opencl"

    def __init__(self, cl: Any, device: Any, index: int, cpu_shapes: bool | None = None) -> None:
        context = cl.Context([device])
        _probe(cl, context, device)
        self._info = _describe(cl, device)
        if cpu_shapes is None:
            cpu_shapes = self._info.kind == "cpu"
        super().__init__(index, "opencl", cpu_shapes, self._info.fp64, int(device.max_work_group_size))
        self.vector_bytes = 4 * min(16, max(2, device.native_vector_width_float))
        self._largest = int(device.max_mem_alloc_size)
        self._cl = cl
        self._context = context
        self._queue = cl.CommandQueue(context, device)
        self._pool = cl.tools.MemoryPool(cl.tools.ImmediateAllocator(self._queue))
        self._peak = 0
        self._launch_lock = threading.Lock()
        self._enqueue = cl.enqueue_nd_range_kernel
        self._transfer = cl.enqueue_copy
        self._options = ["-cl-std=CL1.2"]
        if device.single_fp_config & cl.device_fp_config.CORRECTLY_ROUNDED_DIVIDE_SQRT:
            self._options.append("-cl-fp32-correctly-rounded-divide-sqrt")

    def info(self) -> DeviceInfo:
        return self._info

    # -- memory ---------------------------------------------------------------
    def _allocate(self, nbytes: int) -> Any:
        try:
            buffer = self._pool.allocate(nbytes)
        except (self._cl.Error, MemoryError):
            buffer = self._allocate_again(nbytes)
        active = self._pool.active_bytes
        if active > self._peak:
            self._peak = active
        return buffer

    def address(self, array: StridedArray) -> int:
        return int(array.buffer.int_ptr) + array.offset

    def release_cached(self) -> None:
        self._queue.finish()
        self._pool.free_held()

    def _allocate_again(self, nbytes: int) -> Any:
        """After giving back what the pool holds unused."""
        self._queue.finish()
        self._pool.free_held()
        try:
            return self._pool.allocate(nbytes)
        except (self._cl.Error, MemoryError) as error:
            stats, total = self.memory_stats(), self._info.memory or 0
            raise OutOfMemoryError(
                f"opencl:{self.index} ({self._info.name}) cannot allocate {nbytes:,} bytes: {stats['allocated']:,} "
                f"bytes are in use, {stats['reserved'] - stats['allocated']:,} more are held by the pool, which was "
                f"emptied before trying again, and of the device's {total:,} at most {total - stats['reserved']:,} are "
                f"free, {self._largest:,} for one tensor; use smaller batches, or free what is not needed"
            ) from error

    def memory_stats(self) -> dict[str, int]:
        return {"allocated": self._pool.active_bytes, "peak": self._peak, "reserved": self._pool.managed_bytes}

    def reset_peak_memory_stats(self) -> None:
        self._peak = self._pool.active_bytes

    def _write(self, buffer: Any, data: np.ndarray) -> None:
        self._transfer(self._queue, buffer, data, is_blocking=True)

    def _read(self, buffer: Any, offset: int, data: np.ndarray) -> None:
        self._transfer(self._queue, data, buffer, src_offset=offset, is_blocking=True)

    def _finish(self) -> None:
        self._queue.finish()

    def timeline(self) -> Timeline:
        return _QueueTimeline(self)

    # -- kernels --------------------------------------------------------------
    def _compile(self, source: str, fuse: bool, double: bool) -> Any:
        options = [*self._options, *(["-cl-mad-enable"] if fuse else [])]
        if not double:  # a literal such as 0.5 must not ask for double precision
            options.append("-cl-single-precision-constant")
        try:
            return _build(self._cl, self._cl.Program(self._context, source), options)
        except (self._cl.Error, self._cl.RuntimeError) as error:
            raise DeviceError(f"opencl:{self.index} ({self._info.name}) refused a kernel:\n{error}") from error

    def _get_kernel(self, program: Any, name: str, local: int) -> Any:
        kernel = self._cl.Kernel(program, name)
        # PyOpenCL's general set_arg tries every other type before bytes (5 us against 0.1 us for the direct way).
        return kernel, kernel.set_arg, getattr(kernel, "_set_arg_buf", kernel.set_arg), local, (local,)

    def _launch(self, kernel: Any, groups: int, *args: Any) -> None:
        kernel, set_arg, set_bytes, local, local_size = kernel
        with self._launch_lock:
            i = 0
            for arg in args:
                if type(arg) is bytes:
                    set_bytes(i, arg)
                else:
                    set_arg(i, arg)
                i += 1
            self._enqueue(self._queue, kernel, (groups * local,), local_size)

    def replay(self, launches: Sequence[tuple[Any, int, Sequence[Any]]]) -> Callable[[], None]:
        """As in the base class, by kernel objects of their own whose arguments are set once."""
        cl = self._cl
        bound = []
        for (kernel, _, _, local, local_size), groups, args in launches:
            own = cl.Kernel(kernel.program, kernel.function_name)
            set_bytes = getattr(own, "_set_arg_buf", own.set_arg)
            for i, arg in enumerate(args):
                (set_bytes if type(arg) is bytes else own.set_arg)(i, arg)
            bound.append((own, (groups * local,), local_size))
        kept = [args for _, _, args in launches]  # buffers live as long as what they are set in

        def queue() -> None:
            with self._launch_lock:
                for kernel, items, local in bound:
                    self._enqueue(self._queue, kernel, items, local)

        queue.kept = kept  # type: ignore[attr-defined]
        return queue


class _QueueTimeline(Timeline):
    """Events of a queue that measures, which stands in for the backend's while this is open."""

    concurrent = False

    def __init__(self, backend: OpenCLBackend) -> None:
        cl = backend._cl
        device = backend._queue.device
        queue = cl.CommandQueue(backend._context, device, cl.command_queue_properties.PROFILING_ENABLE)
        self._backend = backend
        self._local = threading.local()
        self._offset = _clock_offset(cl, queue)
        self._plain = backend._queue, backend._enqueue, backend._transfer
        self._switch(queue, self._noting(backend._enqueue), self._noting(backend._transfer))

    def _switch(self, queue: Any, enqueue: Any, transfer: Any) -> None:
        backend = self._backend
        with backend._launch_lock:
            backend._queue.finish()  # two queues have no order between them
            backend._queue, backend._enqueue, backend._transfer = queue, enqueue, transfer

    def _noting(self, enqueue: Callable[..., Any]) -> Callable[..., Any]:
        local = self._local

        def noting(*args: Any, **options: Any) -> Any:
            event = enqueue(*args, **options)
            mark = getattr(local, "mark", None)
            if mark is not None:
                mark.append(event)
            return event

        return noting

    def start(self) -> list[Any]:
        mark: list[Any] = []
        self._local.mark = mark
        return mark

    def stop(self, mark: Any) -> None:
        self._local.mark = None

    def spans(self, mark: Any) -> list[tuple[int, int]]:
        found = []
        for event in mark:
            event.wait()
            found.append((event.profile.start + self._offset, event.profile.end + self._offset))
        return found

    def close(self) -> None:
        self._switch(*self._plain)


def _clock_offset(cl: Any, queue: Any) -> int:
    """What the host's clock shows more than the device's, in nanoseconds: by the quickest of a few markers."""
    offsets = []
    for _ in range(5):
        before = perf_counter_ns()
        event = cl.enqueue_marker(queue)
        after = perf_counter_ns()
        event.wait()
        offsets.append((after - before, (before + after) // 2 - event.profile.queued))
    return min(offsets)[1]
