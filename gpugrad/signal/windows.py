"""Windows by which a signal is multiplied before its spectrum is taken (F. J. Harris, 1978, On the use of windows for
harmonic analysis with the discrete Fourier transform).

``M`` numbers in ``dtype`` (the default one), symmetric, or with ``sym=False`` periodic: as the first M of M + 1. Raises
RuntimeError or ValueError for negative sizes and dtypes that are not floating-point. Made on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from gpugrad import dtypes
from gpugrad.ops import creation

__all__ = [
    "bartlett",
    "blackman",
    "cosine",
    "exponential",
    "gaussian",
    "general_cosine",
    "general_hamming",
    "hamming",
    "hann",
    "kaiser",
    "nuttall",
]


def _made(op: str, M: int, sym: bool, wave: Callable[[np.ndarray, int], np.ndarray], options: dict[str, Any]) -> Any:
    """``wave(places, points)`` over the places 0, 1, ... of a symmetric window of ``points`` numbers."""
    dtype, device = options.pop("dtype", None), options.pop("device", None)
    requires_grad = options.pop("requires_grad", False)
    creation.check_options(op, options)
    d = dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    if not d.is_floating_point or d in (dtypes.float16, dtypes.bfloat16):
        raise ValueError(f"{op}: dtype must be float32 or float64, not {d.name}")
    if M < 0:
        raise ValueError(f"{op}: M must not be negative, got {M}")
    points = M if sym else M + 1
    values = wave(np.arange(M, dtype=np.float64), points) if M > 1 else np.ones(M)
    return creation.tensor(values, dtype=d, device=device, requires_grad=requires_grad)


def _cosines(M: int, weights: Iterable[float], places: np.ndarray, points: int) -> np.ndarray:
    """Sum of cosines of whole numbers of periods with alternating signs."""
    phase = 2 * np.pi * places / (points - 1)
    return sum(((-1) ** k * a * np.cos(k * phase) for k, a in enumerate(weights)), np.zeros(M))


def general_cosine(M: int, *, a: Iterable[float], sym: bool = True, **options: Any) -> Any:
    """``a[0] - a[1] cos(x) + a[2] cos(2 x) - ...``, x from 0 to 2 pi. Raises TypeError or ValueError unless ``a``
    holds numbers."""
    if not isinstance(a, Iterable):
        raise TypeError(f"general_cosine: a must be a list of numbers, not {type(a).__name__}")
    weights = list(a)
    if not weights:
        raise ValueError("general_cosine: a must hold at least one number")
    return _made("general_cosine", M, sym, lambda i, n: _cosines(M, weights, i, n), options)


def general_hamming(M: int, *, alpha: float = 0.54, sym: bool = True, **options: Any) -> Any:
    """``alpha - (1 - alpha) cos(x)``."""
    return general_cosine(M, a=[alpha, 1.0 - alpha], sym=sym, **options)


def hamming(M: int, *, sym: bool = True, **options: Any) -> Any:
    """``0.54 - 0.46 cos(x)``."""
    return general_hamming(M, sym=sym, **options)


def hann(M: int, *, sym: bool = True, **options: Any) -> Any:
    """``0.5 - 0.5 cos(x)``."""
    return general_hamming(M, alpha=0.5, sym=sym, **options)


def blackman(M: int, *, sym: bool = True, **options: Any) -> Any:
    """``0.42 - 0.5 cos(x) + 0.08 cos(2 x)``."""
    return general_cosine(M, a=[0.42, 0.5, 0.08], sym=sym, **options)


def nuttall(M: int, *, sym: bool = True, **options: Any) -> Any:
    """Four cosines with the smallest sidelobes (A. H. Nuttall, 1981, Some windows with very good sidelobe behavior)."""
    return general_cosine(M, a=[0.3635819, 0.4891775, 0.1365995, 0.0106411], sym=sym, **options)


def bartlett(M: int, *, sym: bool = True, **options: Any) -> Any:
    """A triangle from 0 to 1 and back."""
    return _made("bartlett", M, sym, lambda i, n: 1.0 - np.abs(2.0 * i / (n - 1) - 1.0), options)


def cosine(M: int, *, sym: bool = True, **options: Any) -> Any:
    """Half a period of a sine, between the places: ``sin(pi (i + 1/2) / M)``."""
    return _made("cosine", M, sym, lambda i, n: np.sin(np.pi * (i + 0.5) / n), options)


def exponential(M: int, *, center: float | None = None, tau: float = 1.0, sym: bool = True, **options: Any) -> Any:
    """``exp(-|i - center| / tau)``; the centre is the middle unless given, which goes with ``sym=False`` only. Raises
    ValueError."""
    if tau <= 0:
        raise ValueError(f"exponential: tau must be positive, got {tau}")
    if sym and center is not None:
        raise ValueError("exponential: a symmetric window has its centre in the middle; give center with sym=False")
    return _made(
        "exponential",
        M,
        sym,
        lambda i, n: np.exp(-np.abs(i - ((n - 1) / 2 if center is None else center)) / tau),
        options,
    )


def gaussian(M: int, *, std: float = 1.0, sym: bool = True, **options: Any) -> Any:
    """``exp(-(i - middle)^2 / (2 std^2))``. Raises ValueError unless ``std`` is positive."""
    if std <= 0:
        raise ValueError(f"gaussian: std must be positive, got {std}")
    return _made("gaussian", M, sym, lambda i, n: np.exp(-(((i - (n - 1) / 2) / std) ** 2) / 2), options)


def kaiser(M: int, *, beta: float = 12.0, sym: bool = True, **options: Any) -> Any:
    """``I0(beta sqrt(1 - t^2)) / I0(beta)`` for t from -1 to 1 (J. F. Kaiser, 1974). Raises ValueError for negative
    ``beta``."""
    if beta < 0:
        raise ValueError(f"kaiser: beta must not be negative, got {beta}")
    return _made(
        "kaiser",
        M,
        sym,
        lambda i, n: np.i0(beta * np.sqrt(np.maximum(1 - (2 * i / (n - 1) - 1) ** 2, 0))) / np.i0(beta),
        options,
    )
