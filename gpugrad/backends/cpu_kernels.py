"""Large calls of the CPU backend, by kernels that the machine's C compiler builds (``host_kernels.py``).

NumPy makes a pass over memory of each ufunc, and threads hand the interpreter to each other between them; a kernel
makes one or two. Which way a call goes follows from shapes and dtypes alone, so that it gives the same bits each time,
and only calls with so much work go to kernels that a program of small ones never waits for a compiler: each kernel is
built once per machine, in 0.2 to 0.6 s, and kept on disk. Without a compiler all is NumPy's.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from gpugrad.backends.base import Backend, Elementwise
from gpugrad.dtypes import bfloat16
from gpugrad.errors import DeviceError

#: elements from which on a call is large. GPUGRAD_CPU_KERNELS names another number, 0 for none
LARGE = 1 << 16
#: multiply-adds of a convolution that count as one element: 1 << 24 are 0.1 s by a loop, 2 ms by either way
WEIGHT = 256

_HALF_OR_SINGLE = 4  # bytes


def kernels_from() -> int | None:
    """What GPUGRAD_CPU_KERNELS says: None where kernels are switched off."""
    given = os.environ.get("GPUGRAD_CPU_KERNELS", "")
    if not given.isdigit():
        return LARGE
    return int(given) or None


def _rows(x: np.ndarray, *_: Any) -> int:
    return x.size


def _single_rows(x: np.ndarray, *_: Any) -> int:
    """Of float64, NumPy has a vectorised exp where C's library has none."""
    return x.size if x.dtype.itemsize <= _HALF_OR_SINGLE else 0


def _after_gradient(gradient: np.ndarray, x: np.ndarray, *_: Any) -> int:
    return x.size


def _after_both(gradient: np.ndarray, beside: np.ndarray, x: np.ndarray, *_: Any) -> int:
    return x.size


def _logits(gradient: np.ndarray, x: np.ndarray, *_: Any) -> int:
    return _single_rows(x)


def _scores(q: np.ndarray, k: np.ndarray, v: np.ndarray, *_: Any) -> int:
    """Of attention: 12 x 4 heads of 64 by 64 and width 32 count as 79 thousand and take 0.71 of NumPy's time by
    kernels, 8 x 8 heads of 32 by 32 and width 64 as 52 thousand and would take 1.13; 4 x 12 of 1024 by 1024 0.60."""
    from gpugrad.backends.kernel_attention import QUERIES, WIDEST  # few programs need what it stands on

    if q.dtype.itemsize > _HALF_OR_SINGLE or max(q.shape[3], v.shape[3]) > WIDEST:
        return 0
    if q.shape[0] * q.shape[1] * -(-q.shape[2] // QUERIES) < 4:
        return 0  # too few items to share out: one head of 512 by 512 would take 1.25 of NumPy's time
    return prod(q.shape[:3]) * k.shape[2] * (q.shape[3] + v.shape[3]) // 160


def _scores_after(gradient: Any, q: np.ndarray, k: np.ndarray, v: np.ndarray, out: Any, kept: Any, *_: Any) -> int:
    return 0 if kept.ndim == 4 else _scores(q, k, v)  # weights are what NumPy's way keeps


def _tensors(update: Any, columns: Any, numbers: Any) -> int:
    return sum([a.size for a in columns[0]])


def _windows(x: np.ndarray, kernel: Any, *_: Any) -> int:
    return x.size // 2


def _convolution(x: np.ndarray, weight: np.ndarray, stride: Any, dilation: Any, groups: int, *_: Any) -> int:
    places = prod([n // t for n, t in zip(x.shape[2:], stride, strict=True)])
    return _products(weight.shape, x.shape[0] * places)


def _input_grad(gradient: np.ndarray, weight: np.ndarray, size: Any, stride: Any, *_: Any) -> int:
    if any(t != 1 for t in stride) and weight.shape[1] > 1:
        return 0  # between its elements lie zeros: columns and BLAS win
    return _products(weight.shape, gradient.shape[0] * prod(gradient.shape[2:]))


def _weight_grad(gradient: np.ndarray, x: np.ndarray, kernel: Any, stride: Any, dilation: Any, groups: int) -> int:
    shape = (gradient.shape[1], x.shape[1] // groups, *kernel)
    return _products(shape, gradient.shape[0] * prod(gradient.shape[2:]))


def _products(weight: tuple[int, ...], positions: int) -> int:
    """A kernel of one element is a bare product, which is BLAS's."""
    return positions * prod(weight) // WEIGHT if any(k > 1 for k in weight[2:]) else 0


#: what goes to kernels, and how the work of a call is counted, in elements
WORK: dict[str, Callable[..., int]] = {
    "fused_softmax": _single_rows,
    "fused_softmax_backward": _single_rows,
    "fused_log_softmax": _single_rows,
    "fused_log_softmax_backward": _single_rows,
    "fused_cross_entropy": _single_rows,
    "fused_cross_entropy_backward": _logits,
    "fused_layer_norm": _rows,
    "fused_layer_norm_backward": _after_gradient,
    "fused_rms_norm": _rows,
    "fused_rms_norm_backward": _after_gradient,
    "fused_add_layer_norm": _rows,
    "fused_add_layer_norm_backward": _after_both,
    "fused_add_rms_norm": _rows,
    "fused_add_rms_norm_backward": _after_both,
    "fused_attention": _scores,
    "fused_attention_backward": _scores_after,
    "fused_update": _tensors,
    "convolve": _convolution,
    "convolve_input_grad": _input_grad,
    "convolve_weight_grad": _weight_grad,
    "max_pool": _windows,
    "max_pool_grad": _windows,
}

#: elementwise rows of which a kernel takes 0.3 to 0.6 of NumPy's time, which makes several passes (erf: 0.03)
MAPPED = frozenset(
    "entr erf gelu_exact gelu_exact_backward gelu_tanh gelu_tanh_backward relu relu_backward sigmoid sigmoid_backward "
    "silu_backward silu_value tanh_backward xlogy".split()
)

_MAPPED_DTYPES = frozenset(np.dtype(t) for t in ("f4", "f2"))  # of bfloat16 both ways take the same time


_PLAIN = frozenset(np.dtype(t) for t in ("f4", "f8"))
#: the shortest rows of which a kernel takes less than NumPy's way of sums does
_LONG = 512


def reduced(kind: str, array: np.ndarray, axes: Sequence[int]) -> int:
    """The work of a reduction, in elements: 0 where NumPy is quicker. A kernel takes 0.03 to 0.5 of NumPy's time for
    half types and integers, 0.1 to 0.9 for others, but for the largest element of rows up to 2.3 times as long."""
    if kind in ("any", "all") or not len(axes) or not array.flags.c_contiguous:
        return 0
    row = 1  # neighbours that are reduced together
    for i in reversed(range(array.ndim)):
        if i not in axes:
            break
        row *= array.shape[i]
    plain = array.dtype in _PLAIN
    if row > 1 and kind != "prod":
        if plain and (kind != "sum" or row < _LONG):
            return 0
        if array.dtype == bfloat16.numpy and kind == "sum" and (row < _LONG or row == array.size):
            return 0
    return array.size >> 2 if plain else array.size


class KernelOps(Backend):
    """Methods of the CPU backend that go to kernels where a call is large enough."""

    #: from how many elements on; None: never
    kernels_from: int | None = None
    _host: Any = None
    _host_lock = threading.Lock()  # of all backends; renewed in a forked child

    def host_kernels(self) -> Any:
        """The kernels' half over this backend's memory. Raises BuildError where there is no C compiler."""
        found = self._host
        if found is None:
            with self._host_lock:
                found = self._host
                if found is None:
                    from gpugrad.backends.host_kernels import HostKernels  # few programs need it

                    found = self._host = HostKernels(self)
        return found

    def map_by_kernel(
        self, row: Elementwise, inputs: Sequence[Any], compute: np.dtype, result: np.dtype
    ) -> np.ndarray | None:
        """A row of ``MAPPED`` of large dense arrays, all of one shape and dtype; None of others."""
        least = self.kernels_from
        if least is None or row.name not in MAPPED or result != compute or compute not in _MAPPED_DTYPES:
            return None
        first, *others = (x for x in inputs if type(x) is np.ndarray)
        if first.size < least or any(x.shape != first.shape for x in others):
            return None
        if any(x.dtype != compute or not x.flags.c_contiguous for x in (first, *others)):
            return None
        done: list[np.ndarray] = self._built("map_here", row, inputs, compute, result)
        return done[0] if done else None

    def reduce_by_kernel(self, kind: str, array: np.ndarray, axes: Sequence[int], dtype: np.dtype) -> np.ndarray | None:
        """A large reduction; None where it is NumPy's."""
        least = self.kernels_from
        if least is None or array.size < least or reduced(kind, array, axes) < least:
            return None
        done: list[np.ndarray] = self._built("reduce_here", kind, array, axes, dtype)
        return done[0] if done else None

    def _built(self, name: str, *args: Any, **kwargs: Any) -> list[Any]:
        """What the kernels' method returns, as the only item; nothing where its kernel cannot be built."""
        from gpugrad.backends import host_build

        try:
            return [self.host_kernels().call(name)(*args, **kwargs)]
        except host_build.BuildError as error:  # raised before anything runs
            self._without_kernels(error)
            return []

    def _without_kernels(self, error: DeviceError) -> None:
        """From now on NumPy does everything, which is said once, unless the compiler was switched off."""
        from gpugrad.backends import host_build

        self.kernels_from = None
        if host_build.named() != "":
            warnings.warn(
                f"cpu: large operations run by NumPy, several times more slowly, as their kernels cannot be built: "
                f"{error}\nInstall a C compiler or name one in GPUGRAD_CC; GPUGRAD_CPU_KERNELS=0 is for NumPy, and "
                "silence",
                RuntimeWarning,
                stacklevel=5,
            )


def _renew_lock() -> None:
    KernelOps._host_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def _by_kernels(name: str, work: Callable[..., int]) -> Callable[..., Any]:
    def method(self: KernelOps, *args: Any, **kwargs: Any) -> Any:
        least = self.kernels_from
        if least is not None and work(*args) >= least:
            done = self._built(name, *args, **kwargs)
            if done:
                return done[0]
        return getattr(super(KernelOps, self), name)(*args, **kwargs)

    method.__name__ = method.__qualname__ = name
    return method


for _name, _work in WORK.items():
    setattr(KernelOps, _name, _by_kernels(_name, _work))
