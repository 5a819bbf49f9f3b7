"""Evenly spaced numbers, and the windows that signals are multiplied with."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from gpugrad import dtypes
from gpugrad.ops import table
from gpugrad.ops.creation import backend_for, check_options


def _made(op: str, values: np.ndarray, dtype: Any, device: Any, requires_grad: bool, options: dict[str, Any]) -> Any:
    """``values`` (float64) as a tensor of ``dtype``, the default one unless given."""
    check_options(op, options)
    d = dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    backend = backend_for(device, d, op)
    with np.errstate(all="ignore"):
        t = table.wrap(backend.from_host(values.astype(d.numpy)), backend)
    return t.requires_grad_() if requires_grad else t


def _number(op: str, name: str, x: Any) -> float:
    if isinstance(x, table.Tensor):
        if x._array.ndim:
            raise RuntimeError(f"{op}: {name} must be a number or a 0-d tensor, got {table.describe(x)}")
        x = x.item()
    return float(x)


def _spaced(op: str, start: Any, end: Any, steps: int, dtype: Any) -> np.ndarray:
    if steps < 0:
        raise RuntimeError(f"{op}: steps must not be negative, got {steps}")
    first, last = _number(op, "start", start), _number(op, "end", end)
    if dtype is not None and dtypes.as_dtype(dtype).category == 1:
        # The ends are converted to the integer dtype before, the values between them after.
        limits = dtypes.iinfo(dtypes.as_dtype(dtype))
        first, last = math.trunc(first), math.trunc(last)
        if min(first, last) < limits.min or max(first, last) > limits.max:
            raise RuntimeError(f"{op}: {start} and {end} do not both fit into {dtypes.as_dtype(dtype).name}")
    if steps < 2:
        return np.full(steps, first)
    # From both ends, so that the second half mirrors the first and the last value is ``end`` itself.
    step = (last - first) / (steps - 1)
    i = np.arange(steps)
    with np.errstate(all="ignore"):
        return np.where(i < steps // 2, first + step * i, last - step * (steps - 1 - i))


def linspace(
    start: Any,
    end: Any,
    steps: int,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **options: Any,
) -> Any:
    """``steps`` evenly spaced values from ``start`` to ``end`` (numbers or 0-d tensors), both included."""
    return _made("linspace", _spaced("linspace", start, end, steps, dtype), dtype, device, requires_grad, options)


def logspace(
    start: Any,
    end: Any,
    steps: int,
    base: float = 10.0,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **options: Any,
) -> Any:
    """``base`` to the powers of :func:`linspace`."""
    values = _spaced("logspace", start, end, steps, dtype)
    with np.errstate(all="ignore"):
        values = np.power(float(base), values)
    return _made("logspace", values, dtype, device, requires_grad, options)


def range(
    start: Any = 0,
    end: Any = None,
    step: Any = 1,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **options: Any,
) -> Any:
    """``start``, ``start + step``, ... up to ``end``, which is included: deprecated, warns; use :func:`arange`."""
    warnings.warn("range() includes its end, unlike Python's; use arange()", UserWarning, stacklevel=2)
    if end is None:
        start, end = 0, start
    first, last, width = (_number("range", n, x) for n, x in (("start", start), ("end", end), ("step", step)))
    if width == 0 or (last - first) * width < 0:
        raise RuntimeError(f"range: step {width:g} does not lead from {first:g} to {last:g}")
    values = first + np.arange(math.floor((last - first) / width) + 1) * width
    return _made("range", values, dtype, device, requires_grad, options)


# -- windows --------------------------------------------------------------------------------


def _window(
    op: str, window_length: int, periodic: bool, shape: Callable[[np.ndarray], np.ndarray], dtype: Any, *rest: Any
) -> Any:
    """``shape`` over the positions from 0 to 1; a periodic window is a longer symmetric one without its last."""
    d = dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    if not d.is_floating_point:
        raise RuntimeError(f"{op}: dtype must be a floating-point one, not {d.name}")
    if window_length < 0:
        raise RuntimeError(f"{op}: window_length must not be negative, got {window_length}")
    if window_length < 2:
        return _made(op, np.ones(window_length), d, *rest)
    points = window_length + bool(periodic)
    return _made(op, shape(np.arange(window_length) / (points - 1)), d, *rest)


def hann_window(
    window_length: int,
    periodic: bool = True,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **options: Any,
) -> Any:
    """Half a period of a raised cosine, ``sin(pi t) ** 2``; ``periodic`` for spectra, else symmetric."""
    wave = lambda t: 0.5 - 0.5 * np.cos(2 * np.pi * t)  # noqa: E731
    return _window("hann_window", window_length, periodic, wave, dtype, device, requires_grad, options)


def hamming_window(
    window_length: int,
    periodic: bool = True,
    alpha: float = 0.54,
    beta: float = 0.46,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **options: Any,
) -> Any:
    """``alpha - beta cos(2 pi t)``; ``periodic`` for spectra, else symmetric."""
    wave = lambda t: alpha - beta * np.cos(2 * np.pi * t)  # noqa: E731
    return _window("hamming_window", window_length, periodic, wave, dtype, device, requires_grad, options)


def bartlett_window(
    window_length: int,
    periodic: bool = True,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **options: Any,
) -> Any:
    """A triangle from 0 to 1 and back; ``periodic`` for spectra, else symmetric."""
    wave = lambda t: 1 - np.abs(2 * t - 1)  # noqa: E731
    return _window("bartlett_window", window_length, periodic, wave, dtype, device, requires_grad, options)


def blackman_window(
    window_length: int,
    periodic: bool = True,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **options: Any,
) -> Any:
    """``0.42 - 0.5 cos(2 pi t) + 0.08 cos(4 pi t)``; ``periodic`` for spectra, else symmetric."""
    wave = lambda t: 0.42 - 0.5 * np.cos(2 * np.pi * t) + 0.08 * np.cos(4 * np.pi * t)  # noqa: E731
    return _window("blackman_window", window_length, periodic, wave, dtype, device, requires_grad, options)


def kaiser_window(
    window_length: int,
    periodic: bool = True,
    beta: float = 12.0,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **options: Any,
) -> Any:
    """``I0(beta sqrt(1 - (2t - 1)^2)) / I0(beta)``, I0 the modified Bessel function (Kaiser 1974)."""
    wave = lambda t: np.i0(beta * np.sqrt(np.maximum(1 - (2 * t - 1) ** 2, 0))) / np.i0(beta)  # noqa: E731
    return _window("kaiser_window", window_length, periodic, wave, dtype, device, requires_grad, options)
