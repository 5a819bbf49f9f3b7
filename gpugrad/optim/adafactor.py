"""Adafactor (Shazeer & Stern 2018, "Adaptive Learning Rates with Sublinear Memory Cost")."""

from __future__ import annotations

import math
from typing import Any

from gpugrad import dtypes
from gpugrad.ops import creation
from gpugrad.optim.optimizer import Optimizer, at_least, check_flags, check_lr
from gpugrad.tensor import Tensor


class Adafactor(Optimizer):
    """Second moments of matrices kept as one row and one column, and steps relative to the size of the parameter.

    With b = t^beta2_decay, s = min(lr, 1 / sqrt(t)) and rms the root of the mean square: the mean square of g along
    rows and along columns (for vectors g^2 itself) goes into running means by b; V, their product divided by the mean
    of the rows' (at least eps[0]), estimates g^2; u = g / sqrt(max(V, eps[0]^2)); then
    p = (1 - lr * weight_decay) p - s * max(eps[1], rms(p)) * u / max(1, rms(u) / d).
    ``eps[0]`` None is the dtype's smallest step from 1; ``foreach`` is accepted and changes nothing.
    Raises ValueError for options out of range."""

    _numbers = ("step",)

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        check_flags(foreach, None, False)
        super().__init__(params, {
            "lr": lr, "beta2_decay": beta2_decay, "eps": eps, "d": d, "weight_decay": weight_decay,
            "foreach": foreach, "maximize": maximize,
        })  # fmt: skip

    def _check_group(self, group: dict[str, Any]) -> None:
        check_lr(group["lr"])
        if not group["beta2_decay"] <= 0.0:
            raise ValueError(f"beta2_decay must be at most 0, got {group['beta2_decay']}")
        if group["eps"][0] is not None:
            at_least(group["eps"][0], 0.0, "eps[0]")
        at_least(group["eps"][1], 0.0, "eps[1]")
        at_least(group["d"], 1.0, "d")
        at_least(group["weight_decay"], 0.0, "weight_decay")

    def _update(self, group: dict[str, Any]) -> None:
        lr = float(group["lr"])
        for p, grad, state in zip(*self._active(group, _new_state), strict=True):
            g = -grad if group["maximize"] else grad
            eps = dtypes.finfo(p.dtype).eps if group["eps"][0] is None else group["eps"][0]
            state["step"] += 1
            share = state["step"] ** group["beta2_decay"]
            size = _rms(p).clamp(min=group["eps"][1]) * min(lr, state["step"] ** -0.5)
            if group["weight_decay"]:
                p.mul_(1.0 - lr * group["weight_decay"])
            if "variance" in state:
                estimate = state["variance"].lerp_(g * g, share)
            else:
                rows = state["row_var"].lerp_((g * g).mean(-1, keepdim=True), share)
                columns = state["col_var"].lerp_((g * g).mean(-2, keepdim=True), share)
                estimate = (rows @ columns) / rows.mean(-2, keepdim=True).clamp(min=eps)
            update = estimate.clamp(min=eps * eps).rsqrt() * g
            p.sub_(update * (size / (_rms(update) / group["d"]).clamp(min=1.0)))


def _new_state(p: Tensor) -> dict[str, Any]:
    values = p.detach()
    if p.dim() > 1:
        rows = creation.zeros((*p.shape[:-1], 1), dtype=p.dtype, device=p.device)
        columns = creation.zeros((*p.shape[:-2], 1, p.shape[-1]), dtype=p.dtype, device=p.device)
        return {"step": 0, "row_var": rows, "col_var": columns}
    return {"step": 0, "variance": creation.zeros_like(values)}


def _rms(x: Tensor) -> Tensor:
    """Root of the mean square, in at least float32."""
    wide = x if x.dtype.itemsize >= 4 else x.float()
    return wide.square().sum().sqrt() / math.sqrt(max(1, x.numel()))
