"""How tensors print."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad import dtypes

_options = {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80, "sci_mode": None}


def set_printoptions(
    precision: int | None = None,
    threshold: int | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Digits after the point, elements before summarising, how many to show at each end, width."""
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    _options.update({k: v for k, v in given.items() if v is not None})
    _options["sci_mode"] = sci_mode


def format_tensor(x: Any) -> str:
    """``tensor(values, dtype=, device=, requires_grad=/grad_fn=)``; values of large tensors are summarised."""
    host = x._backend.to_host(x._array)
    if host.dtype in dtypes.HALVES:
        host = host.astype(np.float32)
    notes = []
    d = x.dtype
    if d not in (dtypes.get_default_dtype(), dtypes.int64, dtypes.bool_) or (
        not host.size and d is not dtypes.get_default_dtype()
    ):
        notes.append(f"dtype={d!r}")
    if not host.size and host.ndim != 1:
        notes.insert(0, f"size={tuple(host.shape)}")
    if x._backend.name != "cpu":
        notes.append(f"device='{x.device}'")
    if x.grad_fn is not None:
        notes.append(f"grad_fn={x.grad_fn!r}")
    elif x._requires_grad:
        notes.append("requires_grad=True")
    values = _values(host)
    name = "tensor" if type(x).__name__ == "Tensor" else type(x).__name__
    return f"{name}({', '.join([values, *notes])})"


def _values(host: np.ndarray) -> str:
    if not host.size:
        return "[]"
    formatter: dict[str, Any] = {}
    if host.dtype.kind == "f":
        formatter = {"float_kind": _float_formatter(host)}
    text = np.array2string(
        host,
        separator=", ",
        prefix="tensor(",
        threshold=int(_options["threshold"] or 0),
        edgeitems=int(_options["edgeitems"] or 0),
        max_line_width=int(_options["linewidth"] or 0),
        formatter=formatter,  # type: ignore[arg-type]
    )
    return text


def _float_formatter(host: np.ndarray) -> Any:
    digits = int(_options["precision"] or 0)
    finite = np.abs(host[np.isfinite(host) & (host != 0)])
    if not finite.size:
        whole, scientific = True, False
    else:
        whole = bool((finite == np.floor(finite)).all()) and float(finite.max()) < 1e8
        with np.errstate(over="ignore"):
            scientific = (
                bool(finite.max() / finite.min() > 1000 or finite.max() > 1e8 or finite.min() < 1e-4) and not whole
            )
    if _options["sci_mode"] is not None:
        scientific = bool(_options["sci_mode"])

    def one(v: float) -> str:
        if not np.isfinite(v):
            return str(v)
        if scientific:
            return f"{v:.{digits}e}"
        return f"{v:.0f}." if whole else f"{v:.{digits}f}"

    width = max(len(one(v)) for v in host.reshape(-1)[:2000])
    return lambda v: one(v).rjust(width)
