"""What a device can do at best, measured: the bandwidth of a copy and the rate of a matrix product."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gpugrad.devices import backend_of
from gpugrad.devices import device as resolve_device
from gpugrad.dtypes import as_dtype
from gpugrad.profiler.recording import recorder, unheard

_F32 = np.dtype(np.float32)
_LONG_ENOUGH = 3_000_000  # nanoseconds: what is shorter is measured again with more work
_REPEATS = 5


class Peak(NamedTuple):
    """``copy``: bytes read and written per second by a copy of float32; ``gemm``: FLOP per second of a matrix product,
    of float32 unless another dtype was asked for."""

    copy: float
    gemm: float


_measured: dict[Any, Peak] = {}  # by backend and dtype
_lock = threading.Lock()


def peak(device: Any = None, dtype: Any = None) -> Peak:
    """The measured copy bandwidth and matrix product rate of ``device`` (default: the current one), the products of
    ``dtype`` (floating, default float32).

    Measured on first use, which takes a second or so, and kept until the process ends; other work on the machine at
    that moment makes them too low. Nothing of it is recorded. Raises DeviceError if the device is absent."""
    backend = backend_of(resolve_device(device))
    wanted = _F32 if dtype is None else as_dtype(dtype).numpy
    with _lock:
        found = _measured.get((backend, wanted))
        if found is None:
            with unheard():
                found = _measured[backend, wanted] = _measure(backend, wanted)
        return found


def _measure(backend: Any, dtype: np.dtype) -> Peak:
    timeline = recorder.timeline_of(backend)  # a profiler that is on has it open
    if timeline is not None:
        return Peak(_copy(backend, timeline), _gemm(backend, timeline, dtype))
    timeline = backend.timeline()
    try:
        return Peak(_copy(backend, timeline), _gemm(backend, timeline, dtype))
    finally:
        timeline.close()


def _best(timeline: Any, work: Callable[[], Any]) -> int:
    """Nanoseconds of the quickest run, at least 1. The first run does not count: it compiles, and touches memory."""
    work()
    times = []
    for _ in range(_REPEATS):
        mark = timeline.start()
        work()
        timeline.stop(mark)
        times.append(sum(end - begin for begin, end in timeline.spans(mark)))
    return max(min(times), 1)


def _copy(backend: Any, timeline: Any) -> float:
    """Of 64 MiB, or more where that is too quick to be measured; an eighth of the memory at most."""
    most = min((backend.info().memory or 1 << 30) // 8, 1 << 30)
    nbytes = min(1 << 26, most)
    while True:
        source = backend.random("uniform", (nbytes // 4,), _F32, 0, 0)
        target = backend.copy(source)
        best = _best(timeline, lambda source=source, target=target: backend.copy(source, out=target))  # type: ignore[misc]
        if best >= _LONG_ENOUGH or 4 * nbytes > most:
            return 2 * nbytes / best * 1e9
        nbytes *= 4


def _gemm(backend: Any, timeline: Any, dtype: np.dtype) -> float:
    """Of two square matrices, as large as takes a few milliseconds."""
    rate, n = 0.0, 512
    while True:
        a = backend.copy(backend.random("uniform", (n, n), _F32, 0, 0), dtype)
        best = _best(timeline, lambda a=a: backend.matmul(a, a))  # type: ignore[misc]
        rate = max(rate, 2 * n**3 / best * 1e9)
        if best >= _LONG_ENOUGH or n >= 8192:
            return rate
        n *= 2
