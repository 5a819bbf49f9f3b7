"""How tensors print: PyTorch's layout, digit for digit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gpugrad import dtypes

_PROFILES: dict[str, dict[str, Any]] = {
    "default": {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80},
    "short": {"precision": 2, "threshold": 1000, "edgeitems": 2, "linewidth": 80},
    "full": {"precision": 4, "threshold": math.inf, "edgeitems": 3, "linewidth": 80},
}
_options: dict[str, Any] = {**_PROFILES["default"], "sci_mode": None}


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Digits after the point, elements before summarising, how many to show at each end, width of a line; or
    all of them by ``profile``: "default", "short" or "full". ``sci_mode``: None decides by the values."""
    if profile is not None:
        if profile not in _PROFILES:
            raise ValueError(f"set_printoptions: profile must be one of {', '.join(_PROFILES)}, got {profile!r}")
        _options.update(_PROFILES[profile])
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    _options.update({k: v for k, v in given.items() if v is not None})
    _options["sci_mode"] = sci_mode


def format_tensor(x: Any) -> str:
    """``tensor(values, size=, device=, dtype=, grad_fn=/requires_grad=)``; the values of a large tensor are
    summarised. A note that would pass the width of a line starts a new one."""
    host = x._backend.to_host(x._array)
    if host.dtype in dtypes.HALVES:
        host = host.astype(np.float32)
    name = "tensor" if type(x).__name__ in ("Tensor", "Parameter") else type(x).__name__
    indent = len(name) + 1
    text = f"{name}({_values(host, indent)}"
    last = len(text) - text.rfind("\n") + 1
    for note in _notes(x, host):
        if last + len(note) + 2 > _options["linewidth"]:
            text += ",\n" + " " * indent + note
            last = indent + len(note)
        else:
            text += ", " + note
            last += len(note) + 2
    return text + ")"


def _notes(x: Any, host: np.ndarray) -> list[str]:
    notes = []
    if x._backend.name != "cpu":
        notes.append(f"device='{x.device}'")
    default = dtypes.get_default_dtype()
    if not host.size and host.ndim != 1:
        notes.append(f"size={tuple(host.shape)}")
    if x.dtype is not default and (not host.size or x.dtype not in (dtypes.int64, dtypes.bool_)):
        notes.append(f"dtype={x.dtype!r}")
    if x.grad_fn is not None:
        notes.append(f"grad_fn=<{x.grad_fn.name()}>")
    elif x._requires_grad:
        notes.append("requires_grad=True")
    return notes


def _values(host: np.ndarray, indent: int) -> str:
    if not host.size:
        return "[]"
    edge = _options["edgeitems"] if host.size > _options["threshold"] else 0
    for axis, size in enumerate(host.shape):
        if edge and size > 2 * edge:  # one more than what is shown stands for what is left out
            host = np.take(host, [*range(edge + 1), *range(size - edge, size)], axis)
    shown = host
    for axis, size in enumerate(host.shape):
        if edge and size > 2 * edge:
            shown = np.delete(shown, edge, axis)
    one, width = _formatter(shown)
    return _nested(host, indent, edge, one, width)


def _nested(host: np.ndarray, indent: int, edge: int, one: Callable[[Any], str], width: int) -> str:
    """The text of ``host``, whose element number ``edge`` in dimensions that are longer than twice that
    stands for those left out."""
    if host.ndim == 0:
        return one(host.item())
    cut = bool(edge) and len(host) > 2 * edge
    if host.ndim == 1:
        parts = [one(v) for v in host.tolist()]
        if cut:
            parts[edge] = " ..."
        per_line = max(1, (_options["linewidth"] - indent) // (width + 2))
        lines = [", ".join(parts[i : i + per_line]) for i in range(0, len(parts), per_line)]
        return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"
    parts = [_nested(part, indent + 1, edge, one, width) for part in host]
    if cut:
        parts[edge] = "..."
    return "[" + ("," + "\n" * (host.ndim - 1) + " " * (indent + 1)).join(parts) + "]"


def _formatter(host: np.ndarray) -> tuple[Callable[[Any], str], int]:
    """Text of a value, and the width to which all are padded."""
    if host.dtype.kind != "f":
        width = max(len(str(v)) for v in host.reshape(-1).tolist())
        return lambda v: str(v).rjust(width), width
    digits = _options["precision"]
    values = host[np.isfinite(host) & (host != 0)].astype(np.float64)
    whole = bool((values == np.ceil(values)).all())
    scientific = False
    if values.size:
        most, least = float(np.abs(values).max()), float(np.abs(values).min())
        scientific = most / least > 1000 or most > 1e8 or not whole and least < 1e-4
        if _options["sci_mode"] is not None:
            scientific = bool(_options["sci_mode"])

    def plain(v: float) -> str:
        if scientific:
            return f"{v:.{digits}e}"
        if whole:
            return f"{v:.0f}." if math.isfinite(v) else f"{v:.0f}"
        return f"{v:.{digits}f}"

    width = max((len(plain(v)) for v in values.tolist()), default=1)
    return lambda v: plain(v).rjust(width), width
