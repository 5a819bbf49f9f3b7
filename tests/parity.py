"""One expression, evaluated by gpugrad and by PyTorch, and the comparison of the two.

In an expression ``T`` is the library; every other name is one of the arrays given, as a tensor of
that library. So a case is written once, and reads like a user's program.
"""

from __future__ import annotations

import re

import numpy as np

import gpugrad as gg

TOLERANCE = {"float16": 2e-3, "bfloat16": 1.6e-2, "float32": 2e-5, "float64": 1e-10}


def to_gpugrad(array, device="cpu", requires_grad=False):
    return gg.tensor(array, device=device, requires_grad=requires_grad)


def to_torch(array, torch, requires_grad=False):
    """A torch tensor of an ndarray of any dtype here, bfloat16 included."""
    array = np.array(array, order="C")
    if array.dtype.name == "bfloat16":
        t = torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    else:
        t = torch.from_numpy(array)
    return t.requires_grad_() if requires_grad else t


def evaluate(expression, arrays, library, make):
    used = set(re.findall(r"[A-Za-z_]+", expression))
    names = {k: make(v) if isinstance(v, np.ndarray) else v for k, v in arrays.items() if k in used}
    return eval(expression, {"T": library, "inf": float("inf"), "nan": float("nan"), "np": np, **names})


def same(got, want, rtol=None, atol=1e-6, dtype=True):
    """Shapes, dtypes and values agree; tuples and lists member by member."""
    if isinstance(want, (tuple, list)) and not isinstance(want, type(getattr(want, "shape", None))):
        assert isinstance(got, (tuple, list)), f"expected {len(want)} results, got {type(got).__name__}"
        assert len(got) == len(want)
        for g, w in zip(got, want, strict=True):
            same(g, w, rtol, atol, dtype)
        return
    if not hasattr(want, "detach"):
        assert str(got).replace("gpugrad", "torch") == str(want)
        return
    assert tuple(got.shape) == tuple(want.shape)
    name = str(want.dtype).removeprefix("torch.")
    if dtype:
        assert got.dtype.name == name
    a, b = got.detach().cpu(), want.detach()
    if b.is_floating_point():
        a, b = a.to_numpy().astype(np.float64), b.double().numpy()
    else:
        a, b = a.to_numpy(), b.numpy()
    limit = TOLERANCE.get(name, 0.0) if rtol is None else rtol
    np.testing.assert_allclose(a, b, rtol=limit, atol=atol if limit else 0)


def check(expression, arrays, torch, device="cpu", **tolerance):
    """Both libraries give the same result, or both refuse with one type of error."""
    try:
        want = evaluate(expression, arrays, torch, lambda a: to_torch(a, torch))
    except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError) as error:
        want = error
    try:
        with gg.device(device):
            got = evaluate(expression, arrays, gg, lambda a: to_gpugrad(a, device))
        if isinstance(want, Exception) and hasattr(got, "to_numpy"):
            got.to_numpy()
    except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError) as error:
        if not isinstance(want, Exception):
            raise AssertionError(f"{expression}: gpugrad raised {type(error).__name__}: {error}") from error
        loose = isinstance(want, NotImplementedError) or type(want).__name__ == "_LinAlgError"
        kind = RuntimeError if loose else type(want)
        assert isinstance(error, kind), f"PyTorch: {type(want).__name__}: {want}; gpugrad: {error!r}"
        assert str(error)
        return
    assert not isinstance(want, Exception), f"{expression}: PyTorch refuses ({want!r}), gpugrad gave {got}"
    same(got, want, **tolerance)


def gradients(expression, arrays, torch, atol=1e-9):
    """The gradients of a weighted sum of the result agree, in float64; and the result does."""
    results = []
    for library, make in ((gg, to_gpugrad), (torch, lambda a, **k: to_torch(a, torch, **k))):
        leaves = {
            k: make(v, requires_grad=v.dtype.kind == "f") if isinstance(v, np.ndarray) else v for k, v in arrays.items()
        }
        out = eval(expression, {"T": library, "inf": float("inf"), "np": np, **leaves})
        out = out[0] if isinstance(out, tuple) else out
        weights = np.cos(np.arange(out.numel(), dtype=np.float64)).reshape(tuple(out.shape))
        (out * make(weights)).sum().backward()
        results.append(
            [out, *(leaves[k].grad for k, v in arrays.items() if isinstance(v, np.ndarray) and v.dtype.kind == "f")]
        )
    for got, want in zip(*results, strict=True):
        if got is None or want is None:  # a gradient of nothing but zeros may be left out
            rest = got if want is None else want
            assert rest is None or not np.any(np.asarray(rest.detach()))
        else:
            same(got, want, rtol=1e-9, atol=atol)
