"""Work shared out among threads, for the CPU backend: NumPy lets go of the interpreter lock inside its loops."""

from __future__ import annotations

import ctypes
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController


def thread_count() -> int:
    """GPUGRAD_THREADS if set, else the number of processors this process may use."""
    given = os.environ.get("GPUGRAD_THREADS", "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


#: after how many cycles of the processor's clock OpenBLAS's idle threads go to sleep, as a power of two: 1 to 2 ms
PATIENCE = 22


@cache
def calm_blas() -> bool:
    """Let idle threads of NumPy's OpenBLAS sleep after a millisecond or two; whether that was done.

    By themselves they wait actively for a tenth of a second after each product, on processors that our own threads
    need: a training step of a small CNN takes 1.5 times as long. (Threads that sleep at once are slow to wake: an MLP's
    step then takes 1.3 times as long.) OpenBLAS knows ``OPENBLAS_THREAD_TIMEOUT`` for this, and reads it where it is
    loaded, and again where it is asked to; its threads, which take the value when they start, are ended, and are
    started anew by the next product. A value that the user has set stays. Nothing is done where another Python thread
    might be in the middle of a product, nor with builds of OpenBLAS that lack what this takes."""
    name = "OPENBLAS_THREAD_TIMEOUT"
    if name in os.environ or not _others_wait():
        return False
    done = False
    for found in ThreadpoolController().lib_controllers:
        if found.internal_api != "openblas" or getattr(found, "threading_layer", "") != "pthreads":
            continue
        held = ctypes.PyDLL(found.filepath)  # its calls keep the interpreter lock, so no thread begins a product
        if not all(hasattr(held, call) for call in _TIMEOUT_CALLS):
            continue
        read, told, end = (getattr(held, call) for call in _TIMEOUT_CALLS)
        os.environ[name] = str(PATIENCE)
        try:
            read()
        finally:
            del os.environ[name]
        if told() == PATIENCE:
            end()
            done = True
    return done


_TIMEOUT_CALLS = ("openblas_read_env", "openblas_thread_timeout", "blas_thread_shutdown_")
#: where the threads of notebooks (IPython's, ZeroMQ's) and of progress bars wait for what there is to do
_WAITING = re.compile(
    r"\b(threading\.py wait|selectors\.py select|ipykernel/(parentpoller|heartbeat)\.py run"
    r"|ipykernel/iostream\.py _watch_pipe_fd|zmq/.*\bdevice)$"
)


def _others_wait() -> bool:
    """Whether every other Python thread is seen in a place where it computes nothing."""
    frames = sys._current_frames()
    del frames[threading.get_ident()]
    places = [f"{f.f_code.co_filename} {f.f_code.co_name}".replace("\\", "/") for f in frames.values()]
    return len(frames) >= threading.active_count() - 1 and all(map(_WAITING.search, places))


class Workers:
    """A pool made on first use, and anew in a forked child, where the parent's threads do not exist."""

    def __init__(self) -> None:
        self._pid = -1
        self._here = threading.local()  # whether a thread is one of the pool's
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._blas: ThreadpoolController | None = None
        self._pauses = 0  # of BLAS, which uses one thread meanwhile
        self._before: list[tuple[Any, int]] = []  # its libraries, and the threads they had
        self._held: Any = None  # what BLAS had before it was held to one thread
        self.threads = thread_count()
        if self.threads > 1:
            calm_blas()

    def resize(self, threads: int) -> None:
        """Use ``threads`` threads from now on; BLAS as well, unless it is held to one."""
        with self._lock:
            self.threads = threads
            self._pid = -1  # the pool is made anew
            if self._held is None:
                ThreadpoolController().limit(limits=threads, user_api="blas")

    def hold_blas(self, on: bool) -> None:
        """Hold BLAS to one thread, or let it have again what it had: the bits of its products depend on it."""
        with self._lock:
            if on and self._held is None:
                self._held = ThreadpoolController().limit(limits=1, user_api="blas")
            elif not on and self._held is not None:
                self._held.restore_original_limits()
                self._held = None

    @staticmethod
    def blas() -> str:
        """``", OpenBLAS 0.3.31 (SkylakeX)"``: what computes NumPy's products, and by kernels for which processor."""
        for found in ThreadpoolController().select(user_api="blas").info():
            kind = found.get("architecture")
            return f", {found['internal_api']} {found['version']}" + (f" ({kind})" if kind else "")
        return ""

    def _enter(self) -> None:
        self._here.inside = True

    def _prepare(self) -> None:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._lock = threading.Lock()  # the parent's may be held by a thread that is not here
            self._pool = ThreadPoolExecutor(self.threads, "gpugrad", initializer=self._enter)
            self._blas = ThreadpoolController()
            self._pauses = 0

    def share(self, function: Callable[[int], None], count: int) -> None:
        """``function(i)`` for each i below ``count``, for work that calls no BLAS: this thread and the pool's take the
        next number until none is left. The first exception is raised. Work that is shared out already is not
        divided further: its threads would wait for each other."""
        if count < 2 or self.threads < 2 or getattr(self._here, "inside", False):
            for i in range(count):
                function(i)
            return
        self._prepare()
        assert self._pool is not None
        numbers = iter(range(count))  # next() of a range iterator is one step of the interpreter

        def work() -> None:
            for i in numbers:
                function(i)

        others = [self._pool.submit(work) for _ in range(min(self.threads, count) - 1)]
        try:
            work()
        finally:
            for other in others:
                other.result()

    def pause_blas(self) -> None:
        """Let BLAS use one thread until :meth:`resume_blas` is called as often. Its idle threads wait actively for
        some time after a product (:func:`calm_blas`), on our processors: what mixes both does products by ours."""
        self._prepare()
        with self._lock:
            self._pauses += 1
            if self._pauses == 1:
                assert self._blas is not None
                libraries = [x for x in self._blas.lib_controllers if x.user_api == "blas"]
                self._before = [(x, x.num_threads) for x in libraries]
                for library in libraries:
                    library.set_num_threads(1)

    def resume_blas(self) -> None:
        """The end of :meth:`pause_blas`."""
        with self._lock:
            self._pauses = max(self._pauses - 1, 0)
            if not self._pauses:
                for library, threads in self._before:
                    library.set_num_threads(threads)
                self._before = []

    def each(self, function: Callable[..., Any], items: Iterable[Any]) -> list[Any]:
        """``[function(i) for i in items]``, at once where there are several items and threads. BLAS is
        held to one thread meanwhile: its threads and ours would fight for the same processors."""
        items = list(items)
        if len(items) < 2 or self.threads < 2:
            return [function(i) for i in items]
        self._prepare()
        assert self._pool is not None and self._blas is not None
        # One caller at a time: two overlapping limits would restore each other's 1.
        with self._lock, self._blas.limit(limits=1, user_api="blas"):
            return list(self._pool.map(function, items))
