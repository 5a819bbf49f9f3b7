"""NumPy's BLAS library: held to one thread while the CPU backend computes, and its routines for ``products.py``.

How BLAS cuts a product follows from how many threads it has, and elements at the edges of the shares are summed up in
another order than those within: of 168 products tried, 100 differed in their last places between one, two, three and
four threads. So the CPU backend cuts large products itself, by their shapes, and each part is done by one thread.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import ThreadpoolController

#: what OpenBLAS's builds put before and after the names of its routines; NumPy's own has both
_BEFORE, _AFTER = ("scipy_", ""), ("64_", "_64", "")
_LETTER = {np.dtype(np.float32): "s", np.dtype(np.float64): "d"}


class Routines(NamedTuple):
    """BLAS's products for one dtype: ``pointers`` to gemm and gemv, as C sees them, who count in whole numbers of
    ``bits``."""

    pointers: Any
    bits: int


class Blas:
    """``with blas:`` what is inside, and other threads' products meanwhile, uses one thread of BLAS. May be nested."""

    def __init__(self) -> None:
        self._find()
        self._renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew_in_child)

    def _find(self) -> None:
        found = ThreadpoolController().select(user_api="blas").lib_controllers
        own = [x for x in found if any(p.startswith("numpy") for p in Path(x.filepath).parts[-3:])]
        self._libraries = own or found
        calls = [_calls(x) for x in self._libraries]
        if len(calls) == 1:
            self._one: Any = 1
            self._get, self._put = calls[0]
        else:
            self._one = [1] * len(calls)
            self._get = lambda: [get() for get, _ in calls]
            self._put = lambda numbers: [put(n) for n, (_, put) in zip(numbers, calls, strict=True)]

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = self._one

    def _renew_in_child(self) -> None:
        """Of a fork: whoever was inside, or held the lock, is not there."""
        if self._inside:
            self._give_back()
        self._renew()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._before = self._get()
                if self._before != self._one:
                    self._put(self._one)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and self._before != self._one:
                self._give_back()

    def _give_back(self) -> None:
        if self._get() == self._one:  # else somebody has set it meanwhile
            self._put(self._before)

    def begin_thread(self) -> None:
        """In a new thread of the CPU backend's, which computes while another has entered: where each thread has a
        number of BLAS threads of its own, as with OpenMP, this one's is one from now on."""
        if self.threads_differ:
            self._put(self._one)

    @property
    def name(self) -> str:
        """``"OpenBLAS 0.3.31 (SkylakeX)"``: what computes NumPy's products, and by kernels for which processor."""
        for found in self._libraries:
            told = found.info()
            kind = told.get("architecture")
            return f"{told['internal_api']} {told['version']}" + (f" ({kind})" if kind else "")
        return ""

    @property
    def is_openblas(self) -> bool:
        """Whether NumPy's is OpenBLAS: which of its products are done by one thread anyway is known."""
        return bool(self._libraries) and all(x.internal_api == "openblas" for x in self._libraries)

    @property
    def threads_differ(self) -> bool:
        """Whether each thread of the process has a number of BLAS threads of its own, as with OpenMP."""
        return any(getattr(x, "threading_layer", None) not in ("pthreads", "disabled") for x in self._libraries)

    def routines(self, dtype: np.dtype) -> Routines | None:
        """The routines for C code that calls them from threads of its own; None where the library is not one of which
        that is known to work."""
        if len(self._libraries) != 1 or not self.is_openblas or self.threads_differ:
            return None
        library = ctypes.CDLL(self._libraries[0].filepath)
        told = _symbol(library, "openblas_get_config")
        gemm, gemv = (_symbol(library, f"cblas_{_LETTER[dtype]}{kind}") for kind in ("gemm", "gemv"))
        if told is None or gemm is None or gemv is None:
            return None
        told.restype = ctypes.c_char_p
        pointers = (ctypes.c_void_p * 2)(*(ctypes.cast(f, ctypes.c_void_p).value for f in (gemm, gemv)))
        return Routines(pointers, 64 if b"USE64BITINT" in told() else 32)


@cache
def numpy_blas() -> Blas:
    """The library that NumPy has, of which a process has one."""
    return Blas()


def _symbol(library: Any, name: str) -> Any:
    for before in _BEFORE:
        for after in _AFTER:
            found = getattr(library, before + name + after, None)
            if found is not None:
                return found
    return None


def _calls(library: Any) -> tuple[Callable[[], Any], Callable[[Any], object]]:
    """The functions that tell and set a library's number of threads: OpenBLAS's own take a tenth of the time."""
    if library.internal_api == "openblas":
        opened = ctypes.PyDLL(library.filepath)
        get, put = (_symbol(opened, f"openblas_{x}_num_threads") for x in ("get", "set"))
        if get is not None and put is not None:
            return get, put
    return library.get_num_threads, library.set_num_threads
