"""Work shared out among threads, for the CPU backend: those of Python, for NumPy, which lets go of the interpreter lock
inside its loops, and those of ``kernels/host/pool.c``, for what C does."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any


def thread_count() -> int:
    """GPUGRAD_THREADS if set, else the number of processors this process may use."""
    given = os.environ.get("GPUGRAD_THREADS", "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


@cache
def _library() -> ctypes.CDLL:
    """What ``kernels/host`` is built into. Raises BuildError."""
    from gpugrad.backends import host_build, kernel_source  # few programs need them

    text = kernel_source.text("host/pool.c") + kernel_source.text("host/products.c")
    library = host_build.load(text, ("-pthread",))[0]
    library.gg_pool_size.argtypes = (ctypes.c_int64,)
    for name in ("gg_share_items", "gg_share_ranges"):
        getattr(library, name).argtypes = (ctypes.c_void_p, ctypes.c_int64)
        getattr(library, name).restype = None
    return library


class Workers:
    """A pool made on first use, and anew in a forked child, where the parent's threads do not exist."""

    def __init__(self, begin_thread: Callable[[], None]) -> None:
        self._pid = -1
        self._begin_thread = begin_thread  # called in each of the pool's
        self._here = threading.local()  # whether a thread is one of the pool's
        self._pool: ThreadPoolExecutor | None = None
        self._native: ctypes.CDLL | None = None
        self.threads = thread_count()

    def resize(self, threads: int) -> None:
        """Use ``threads`` threads from now on."""
        self.threads = threads
        self._pid = -1  # the pool is made anew
        if self._native is not None:
            self._native.gg_pool_size(threads)

    def native(self) -> ctypes.CDLL:
        """The functions of ``kernels/host``, which share out loops among as many threads of C. Raises BuildError where
        there is no C compiler."""
        if self._native is None:
            library = _library()
            library.gg_pool_size(self.threads)
            self._native = library
        return self._native

    def _enter(self) -> None:
        self._here.inside = True
        self._begin_thread()

    def _prepare(self) -> ThreadPoolExecutor:
        if self._pid != os.getpid() or self._pool is None:
            self._pid = os.getpid()
            self._pool = ThreadPoolExecutor(self.threads, "gpugrad", initializer=self._enter)
        return self._pool

    def share(self, function: Callable[[int], None], count: int) -> None:
        """``function(i)`` for each i below ``count``: this thread and the pool's take the next number until none is
        left. The first exception is raised. Work that is shared out already is not divided further: its threads would
        wait for each other."""
        if count < 2 or self.threads < 2 or getattr(self._here, "inside", False):
            for i in range(count):
                function(i)
            return
        pool = self._prepare()
        numbers = iter(range(count))  # next() of a range iterator is one step of the interpreter

        def work() -> None:
            for i in numbers:
                function(i)

        others = [pool.submit(work) for _ in range(min(self.threads, count) - 1)]
        try:
            work()
        finally:
            for other in others:
                other.result()

    def each(self, function: Callable[..., Any], items: Iterable[Any]) -> list[Any]:
        """``[function(i) for i in items]``, at once where there are several items and threads."""
        items = list(items)
        if len(items) < 2 or self.threads < 2:
            return [function(i) for i in items]
        return list(self._prepare().map(function, items))
