"""How far results of half types are from those of float32, rounded once: what tests/test_half_*.py share.

The same call is made twice on one device with the same values: in a half type, and in float32. What the first gives
has to be what the second gives, rounded. Where that lies so close to the middle between two numbers of the half type
that float32 itself cannot tell, either is right.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

import gpugrad as gg

HALVES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
#: of a float32 result, and of the largest one beside it: what its own rounding may have taken
OWN, BESIDE = 2e-6, 2e-7


def rounded(array: np.ndarray, dtype: str) -> np.ndarray:
    """``array`` (float32 or float64) with values of the half type alone."""
    with np.errstate(all="ignore"):
        return array.astype(HALVES[dtype]).astype(np.float32)


def stored(x: Any, dtype: Any) -> Any:
    """The float32 tensor ``x`` with values of the half type alone."""
    return x.to(dtype).float()


def _order(array: np.ndarray, dtype: str) -> np.ndarray:
    """The numbers of a half type counted from 0, negative ones downwards: neighbours differ by 1."""
    with np.errstate(all="ignore"):
        bits = array.astype(HALVES[dtype]).view(np.uint16).astype(np.int64)
    return np.where(bits & 0x8000, -(bits & 0x7FFF), bits)


def units(got: Any, want: Any, dtype: str) -> int:
    """By how many numbers of the half type ``got`` misses ``want`` (float32), rounded, at worst; 0 where all are right.
    NaN and infinity have to agree; a result that is no half type has to be that of float32 in its first 5 digits."""
    assert tuple(got.shape) == tuple(want.shape), (got.shape, want.shape)
    if not want.dtype.is_floating_point:
        assert got.dtype is want.dtype
        return int((got != want).sum().item())
    half = got.dtype.name == dtype
    assert half or got.dtype is gg.float32, got.dtype
    a, b = got.detach().float().cpu().to_numpy(), want.detach().float().cpu().to_numpy()
    if not a.size:
        return 0
    if not half:
        close = np.isclose(a, b, 1e-5, 1e-6, equal_nan=True)
        return int((~close).sum())
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        return 1 << 16
    a, b = (np.where(np.isnan(x), np.float32(0), x) for x in (a, b))
    finite = np.abs(b[np.isfinite(b)])
    room = OWN * np.abs(b) + BESIDE * (finite.max() if finite.size else 0)
    with np.errstate(all="ignore"):
        low = _order(np.where(np.isfinite(b), b - room, b), dtype)
        high = _order(np.where(np.isfinite(b), b + room, b), dtype)
    own = _order(a, dtype)
    return int(np.maximum(np.maximum(low - own, own - high), 0).max())


def tensors(outcome: Any) -> list[Any]:
    """The tensors that a call returned."""
    if isinstance(outcome, gg.Tensor):
        return [outcome]
    if isinstance(outcome, (tuple, list)):
        return [t for x in outcome for t in tensors(x)]
    return []


def run(call: Any, arrays: list[np.ndarray], dtype: str, device: str, seed: int, backward: bool) -> tuple[Any, Any]:
    """(results, gradients) of ``call`` on tensors of ``arrays``, the floating ones in ``dtype`` or float32; gradients
    (None where there is none) for incoming ones that a half type can hold: ``dtype`` says which one."""
    target, half = dtype.split("/") if "/" in dtype else (dtype, dtype)
    leaves = []
    for a in arrays:
        t = gg.tensor(a, device=device)
        if t.is_floating_point():
            t = t.to(getattr(gg, target)).requires_grad_(backward)
        leaves.append(t)
    found = tensors(call(*leaves))
    wanted = [t for t in leaves if t.requires_grad]
    outs = [t for t in found if t.requires_grad]
    if not backward or not outs or not wanted:
        return found, []
    rng = np.random.default_rng(seed)
    incoming = []
    for t in outs:
        g = rounded(rng.standard_normal(tuple(t.shape)).astype(np.float32), half)
        incoming.append(gg.tensor(g, device=device).to(t.dtype))
    return found, gg.autograd.grad(outs, wanted, incoming, allow_unused=True)


class Deviation(NamedTuple):
    """``forward``, ``backward``: units by which results and gradients are off; ``share``: the worst error of a gradient
    over the largest element of it, in units of the half type there."""

    forward: int
    backward: int
    share: float


def _share(got: Any, want: Any, dtype: str) -> float:
    a, b = got.detach().float().cpu().to_numpy(), want.detach().float().cpu().to_numpy()
    if not np.isfinite(a).all() or not np.isfinite(b).all() or not b.any():
        return 0.0
    return float(np.abs(a - b).max() / (np.abs(b).max() * float(ml_dtypes.finfo(HALVES[dtype]).eps)))


def deviation(call: Any, arrays: list[np.ndarray], dtype: str, device: str, backward: bool = True) -> Deviation:
    """By how much ``call`` in the half type misses float32."""
    arrays = [rounded(a, dtype) if a.dtype.kind == "f" else a for a in arrays]
    half, half_gradients = run(call, arrays, dtype, device, 1, backward)
    full, full_gradients = run(call, arrays, f"float32/{dtype}", device, 1, backward)
    assert len(half) == len(full) and len(half_gradients) == len(full_gradients)
    forward = max([units(a, b, dtype) for a, b in zip(half, full, strict=True)], default=0)
    back, share = 0, 0.0
    for a, b in zip(half_gradients, full_gradients, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            back, share = max(back, units(a, b, dtype)), max(share, _share(a, b, dtype))
    return Deviation(forward, back, share)
