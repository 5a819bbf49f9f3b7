"""Every row of the ops table, on every device: values, dtypes, gradients, second gradients."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

import gpugrad as gg
import gpugrad.linalg
from gpugrad import dtypes
from gpugrad.ops import OPS
from tests import gradients

ROWS = [op for op in OPS.values() if op.samples]
CASES = [pytest.param(op, s, id=f"{op.name}-{i}") for op in ROWS for i, s in enumerate(op.samples)]


def _smooth(op, sample):
    """Finite differences need finite inputs, and a result in float64."""
    finite = all(np.isfinite(np.asarray(s, float)).all() for s in sample.inputs if isinstance(s, list))
    return op.differentiable and finite and op.name != "cast"


DIFFERENTIABLE = [c for c in CASES if _smooth(*c.values)]

# float32 results of these lose digits by cancellation or by long sums
LOOSE = {"pow": 1e-4, "std": 1e-4, "var": 1e-4}


def make_inputs(op, sample, dtype, rng):
    arrays = []
    for spec in sample.inputs:
        if callable(spec):
            arrays.append(np.asarray(spec(rng)))
        elif isinstance(spec, tuple):
            low, high = op.domain
            values = rng.uniform(low, high, spec)
            if low > 0 and "i" not in np.dtype(dtype).kind and op.name in ("abs", "sign", "norm", "leaky_relu"):
                values *= rng.choice([-1.0, 1.0], spec)
            if np.dtype(dtype).kind in "iu":
                values = rng.integers(1, 9, spec)
            elif np.dtype(dtype).kind == "b":
                values = rng.random(spec) > 0.5
            arrays.append(np.asarray(values).astype(dtype))
        else:
            array = np.asarray(spec)
            arrays.append(array.astype(dtype) if array.dtype.kind == "f" else array)
    return arrays


def call(op, sample, tensors):
    if sample.args_as_list:
        out = op.function(list(tensors), **sample.kwargs)
    elif op.name == "einsum":
        out = op.function(sample.kwargs["equation"], *tensors)
    else:
        out = op.function(*tensors, **sample.kwargs)
    return out[0] if isinstance(out, tuple) else out


def reference(op, sample, arrays):
    with np.errstate(all="ignore"):
        return (
            op.reference(list(arrays), **sample.kwargs)
            if sample.args_as_list
            else op.reference(*arrays, **sample.kwargs)
        )


def rng_for(*key):
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


@pytest.mark.parametrize(("op", "sample"), CASES)
def test_forward(op, sample, device):
    if op.reference is None:
        pytest.skip("adjoint rows are checked through the derivative of their partner")
    kind = np.float32 if "f" in op.dtypes else np.int64
    arrays = make_inputs(op, sample, kind, rng_for(op.name))
    result = call(op, sample, [gg.tensor(a, device=device) for a in arrays])
    wide = [a.astype(np.float64) if a.dtype == np.float32 else a for a in arrays]
    expected = reference(op, sample, wide)
    assert result.device.type == device
    assert tuple(result.shape) == np.shape(expected)
    got = result.cpu().to_numpy()
    assert (got.dtype.kind == "b") == (np.asarray(expected).dtype.kind == "b")
    np.testing.assert_allclose(got, expected, rtol=LOOSE.get(op.name, 2e-5), atol=1e-6)


DTYPE_ROWS = [op for op in ROWS if op.reference is not None and op.kind == "elementwise"]


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "int32", "int64", "uint8", "int8", "bool"])
@pytest.mark.parametrize("op", [pytest.param(op, id=op.name) for op in DTYPE_ROWS])
def test_elementwise_dtypes(op, dtype, device):
    d = dtypes.as_dtype(dtype)
    if "bif"[d.category] not in op.dtypes:
        pytest.skip("not defined for this dtype")
    if dtype == "float64" and device == "pretend":
        pytest.skip("no float64 there")
    sample = next(
        s
        for s in op.samples
        if not (d.category != 2 and any(isinstance(x, list) and isinstance(x[0], float) for x in s.inputs))
    )
    arrays = make_inputs(op, sample, d.numpy, rng_for(op.name, dtype))
    result = call(op, sample, [gg.tensor(a, device=device) for a in arrays])
    work = [a.astype(np.float32) if a.dtype == d.numpy and d.numpy in dtypes.HALVES else a for a in arrays]
    on_cpu = call(op, sample, [gg.tensor(a) for a in arrays])
    assert result.dtype is on_cpu.dtype
    got = result.cpu().double().numpy()
    np.testing.assert_allclose(
        got, on_cpu.double().numpy(), rtol={"float16": 2e-3, "bfloat16": 2e-2}.get(dtype, 3e-6), atol=1e-6
    )
    if result.dtype.is_floating_point:
        expected = (
            reference(op, sample, [w.astype(np.float64) if w.dtype.kind != "b" else w for w in work])
            if d.category != 0
            else None
        )
        if expected is not None:
            tolerance = {"float16": 2e-3, "bfloat16": 2e-2, "float64": 1e-12}.get(dtype, 1e-5)
            np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("op", "sample"), DIFFERENTIABLE)
def test_gradient_by_finite_differences(op, sample):
    arrays = make_inputs(op, sample, np.float64, rng_for(op.name, "gradient"))
    gradients.check_first(lambda *t: call(op, sample, t), arrays)


@pytest.mark.parametrize(("op", "sample"), DIFFERENTIABLE)
def test_second_gradient_by_finite_differences(op, sample):
    arrays = make_inputs(op, sample, np.float64, rng_for(op.name, "second"))
    gradients.check_second(lambda *t: call(op, sample, t), arrays)


@pytest.mark.parametrize(("op", "sample"), DIFFERENTIABLE)
def test_gradient_on_device(op, sample, device):
    if device == "cpu":
        pytest.skip("the CPU is the reference")
    arrays = make_inputs(op, sample, np.float32, rng_for(op.name, "device"))
    results = []
    for place in ("cpu", device):
        tensors = gradients.leaves(arrays, place)
        out = call(op, sample, tensors)
        weights = gg.tensor(rng_for(op.name).standard_normal(tuple(out.shape)).astype(np.float32), device=place)
        wanted = [t for t in tensors if t.requires_grad]
        grads = gg.autograd.grad((out * weights).sum(), wanted, allow_unused=True)
        results.append([None if g is None else g.cpu().numpy() for g in grads])
    for a, b in zip(*results, strict=True):
        if a is None or b is None:
            assert a is b
        else:
            np.testing.assert_allclose(b, a, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(("op", "sample"), [c for c in CASES if c.values[0].kind != "view"])
def test_non_contiguous_inputs(op, sample, device):
    """The same values through transposed, strided and offset memory give the same result."""
    kind = np.float32 if "f" in op.dtypes else np.int64
    arrays = make_inputs(op, sample, kind, rng_for(op.name))
    dense = call(op, sample, [gg.tensor(a, device=device) for a in arrays])
    strided = []
    for a in arrays:
        if not a.ndim:
            strided.append(gg.tensor(np.array([0, a], a.dtype), device=device)[1])
            continue
        wide = np.zeros([2 * n + 1 for n in a.shape][::-1], a.dtype)
        inner = wide.T[tuple(slice(1, None, 2) for _ in a.shape)]
        inner[...] = a
        base = gg.tensor(wide, device=device)
        t = base.permute(tuple(range(a.ndim))[::-1])[tuple(slice(1, None, 2) for _ in a.shape)]
        assert tuple(t.shape) == a.shape
        strided.append(t)
    result = call(op, sample, strided)
    np.testing.assert_allclose(result.cpu().to_numpy(), dense.cpu().to_numpy(), rtol=1e-5, atol=1e-6)
