"""The sum of a residual stream and its norm, in one pass: F.add_layer_norm and F.add_rms_norm."""

from __future__ import annotations

import numpy as np
import pytest

import gpugrad as gg
import gpugrad.nn.functional as F
from gpugrad.ops import fused

TOLERANCE = {gg.float32: 2e-5, gg.float16: 1e-2, gg.bfloat16: 8e-2}
WAYS = {
    "layer": lambda x, r, w, b: F.add_layer_norm(x, r, w.shape, w, b),
    "layer without bias": lambda x, r, w, b: F.add_layer_norm(x, r, w.shape, w),
    "layer alone": lambda x, r, w, b: F.add_layer_norm(x, r, w.shape, eps=1e-3),
    "rms": lambda x, r, w, b: F.add_rms_norm(x, r, w.shape, w),
    "rms alone": lambda x, r, w, b: F.add_rms_norm(x, r, w.shape, eps=1e-3),
}
SHAPES = [(5, 7), (2, 3, 8), (300, 128), (3, 4100), (1, 1)]


def in_two(x, r, w, b, way):
    """The same by two operations."""
    s = x + r
    if way.startswith("layer"):
        eps = 1e-3 if "alone" in way else 1e-5
        return F.layer_norm(s, w.shape, *[None if "alone" in way else w, b if way == "layer" else None], eps), s
    return (F.rms_norm(s, w.shape, eps=1e-3) if "alone" in way else F.rms_norm(s, w.shape, w)), s


def leaves(shape, dtype, device, seed=7):
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(s).astype(np.float32) * 2 + 0.5 for s in (shape, shape, shape[-1:], shape[-1:])]
    return [gg.tensor(a, device=device).to(dtype).requires_grad_() for a in arrays], rng


def results(tensors, function, rng, use="both"):
    """Both results and all gradients, as float32 on the host."""
    y, s = function(*tensors)
    gs = [gg.tensor(rng.standard_normal(tuple(y.shape)).astype(np.float32), device=y.device) for _ in range(2)]
    used = [
        (t.float() * g).sum() for t, g, name in zip((y, s), gs, ("norm", "sum"), strict=True) if use in (name, "both")
    ]
    gg.stack(used).sum().backward()
    return [y, s], [t.grad for t in tensors]


def host(t):
    return None if t is None else t.detach().float().cpu().numpy()


@pytest.fixture
def counted(device, monkeypatch):
    """The names of the routines that were asked for and given."""
    backend = gg.zeros(1, device=device)._backend
    offer, names = backend.offer, []

    def listening(name):
        routine = offer(name)
        if routine is not None:
            names.append(name)
        return routine

    monkeypatch.setattr(backend, "offer", listening)
    return names


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_values_and_gradients_are_those_of_two_operations(device, way, shape, dtype):
    found = []
    for function in (WAYS[way], lambda *t: in_two(*t, way)):
        tensors, rng = leaves(shape, dtype, device)
        outs, gradients = results(tensors, function, rng)
        assert all(t.dtype is dtype and tuple(t.shape) == shape for t in outs)
        assert all(g is None or g.dtype is dtype for g in gradients)
        found.append([host(t) for t in (*outs, *gradients)])
    for a, b in zip(*found, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * max(1.0, np.abs(b).max()))
    np.testing.assert_array_equal(found[0][1], found[1][1])  # of the sum every bit


@pytest.mark.parametrize("use", ["norm", "sum"])
@pytest.mark.parametrize("way", ["layer", "rms"])
def test_one_result_alone_may_be_used(device, way, use):
    found = []
    for function in (WAYS[way], lambda *t: in_two(*t, way)):
        tensors, rng = leaves((6, 33), gg.float32, device)
        found.append([host(t) for t in results(tensors, function, rng, use)[1]])
    for a, b in zip(*found, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("way", WAYS)
def test_second_gradients(device, way):
    found = []
    for function in (WAYS[way], lambda *t: in_two(*t, way)):
        (x, r, w, b), _ = leaves((5, 6), gg.float32, device)
        y, s = function(x * w.sum(), r.tanh(), w * 1.5, b)
        wanted = [x, r, w]
        first = gg.autograd.grad(y.square().sum() + s.exp().mean() + (y * s).sum(), wanted, create_graph=True)
        second = gg.autograd.grad(first[0].square().sum() + (first[1] * first[0]).sum() + first[2].sum(), wanted)
        found.append([host(t) for t in (*first, *second)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * max(1.0, np.abs(b).max()))


def test_finite_differences():
    rng = np.random.default_rng(0)
    inputs = [gg.tensor(rng.standard_normal(s), dtype=gg.float64, requires_grad=True) for s in ((3, 5), (3, 5), 5, 5)]
    for way in ("layer", "rms"):
        given = inputs if way == "layer" else inputs[:3]
        function = lambda *t, way=way: WAYS[way](*t, *[None] * (4 - len(t)))  # noqa: E731
        assert gg.autograd.gradcheck(function, given)
        assert gg.autograd.gradgradcheck(function, given)


def test_it_is_one_pass_where_it_can_be(device, counted):
    tensors, rng = leaves((4, 16), gg.float32, device)
    results(tensors, WAYS["layer"], rng)
    offers = gg.zeros(1, device=device)._backend.offer("add_layer_norm") is not None
    assert offers == (device != "pretend")
    assert ("add_layer_norm" in counted and "add_layer_norm_backward" in counted) == offers
    assert "layer_norm" not in counted
    counted.clear()
    x, r, w, b = tensors
    F.add_layer_norm(x, r[:1], (16,), w, b)  # a sum that broadcasts
    F.add_layer_norm(x, r.to(gg.float16), (16,), w, b)  # and one of two dtypes
    assert "layer_norm" in counted or not offers
    assert counted.count("add_layer_norm") == (1 if offers else 0)  # the second was asked about its dtype


def test_operands_of_any_strides(device):
    (x, r, w, b), _ = leaves((8, 6), gg.float32, device)
    wide = gg.stack([x, x], -1)[..., 0].detach()
    for own, other in ((x.t()[:, :6], r[:6].t()[:6]), (wide, r), (x[::2], r[1::2]), (x, x)):
        own, other = own[:, :6].detach().requires_grad_(), other[:, :6].detach().requires_grad_()
        rows = min(len(own), len(other))
        y, s = F.add_layer_norm(own[:rows], other[:rows], (6,), w, b)
        expected = own[:rows] + other[:rows]
        np.testing.assert_array_equal(host(s), host(expected))
        np.testing.assert_allclose(host(y), host(F.layer_norm(expected, (6,), w, b)), rtol=2e-6, atol=2e-6)
        (y.t() * s.t()).sum().backward()
        again = own.grad.clone()
        np.testing.assert_array_equal(host(other.grad), host(again))


def test_a_tensor_added_to_itself_has_both_gradients(device):
    for way in ("layer", "rms"):
        (x, _, w, b), _ = leaves((4, 9), gg.float32, device)
        y, s = WAYS[way](x, x, w, b)
        (y * s).sum().backward()
        mine = host(x.grad)
        x.grad = None
        y, s = in_two(x, x, w, b, way)
        (y * s).sum().backward()
        np.testing.assert_allclose(mine, host(x.grad), rtol=1e-4, atol=1e-4)


def test_gradients_of_two_leaves_share_no_memory(device):
    (x, r, w, b), _ = leaves((4, 9), gg.float32, device)
    y, s = F.add_layer_norm(x, r, (9,), w, b)
    (y.exp() + s).sum().backward()
    before = host(r.grad)
    x.grad.zero_()
    np.testing.assert_array_equal(host(r.grad), before)


def test_shapes_and_dtypes_that_promote(device):
    (x, r, w, b), _ = leaves((2, 3, 8), gg.float32, device)
    y, s = F.add_layer_norm(x, r[0, 0], (8,), w, b)
    assert tuple(y.shape) == (2, 3, 8)
    (y * s).sum().backward()
    assert tuple(r.grad.shape) == (2, 3, 8) and not host(r.grad)[1].any()
    y, s = F.add_rms_norm(x.to(gg.bfloat16), r, (8,), w)
    assert y.dtype is s.dtype is gg.float32
    y, s = F.add_rms_norm(x.to(gg.bfloat16), r.to(gg.bfloat16), (8,), w)  # with a weight in float32
    assert s.dtype is gg.bfloat16 and y.dtype is F.rms_norm(s, (8,), w).dtype


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0)], ids=str)
def test_nothing(device, shape):
    tensors, rng = leaves(shape, gg.float32, device)
    for way in ("layer", "rms"):
        y, s = WAYS[way](*tensors)
        assert tuple(y.shape) == tuple(s.shape) == shape
        (y.sum() + s.sum()).backward()
        assert tuple(tensors[0].grad.shape) == shape


def test_nan_stays_in_its_row(device):
    (x, r, w, b), _ = leaves((3, 40), gg.float32, device)
    bad = x.detach().clone()
    bad[1, 3] = float("nan")
    bad[2, 0] = float("inf")
    bad.requires_grad_()
    for way in ("layer", "rms"):
        y, s = WAYS[way](bad, r, w, b)
        values, total = host(y), host(s)
        assert np.isnan(values[1]).all() and np.isfinite(values[0]).all() and np.isnan(values[2, 0])
        assert np.isnan(total[1, 3]) and np.isfinite(total[1, :3]).all() and np.isposinf(total[2, 0])
        (y[0] * s[0]).sum().backward()


def test_large_and_tiny_values(device):
    x = gg.tensor([[1e4, 1e4 + 1, 1e4 - 1, 1e4], [1e-20, -1e-20, 0, 0]], device=device)
    y, _ = F.add_layer_norm(x, x, (4,))
    np.testing.assert_allclose(host(y)[0], [0, np.sqrt(2), -np.sqrt(2), 0], atol=2e-3)
    assert np.isfinite(host(y)).all()


@pytest.mark.parametrize("way", ["layer", "rms"])
def test_changing_the_sum_before_backward_is_an_error(device, way):
    tensors, _ = leaves((3, 5), gg.float32, device)
    if fused.offered(tensors[0], f"add_{way}_norm") is None:
        pytest.skip("the definition saves something else")
    y, s = WAYS[way](*tensors)
    with gg.no_grad():
        s.add_(1)
    with pytest.raises(RuntimeError, match="its result 1, of shape .3, 5., was saved for backward and then changed"):
        y.sum().backward()
    y, s = WAYS[way](*tensors)
    y.sum().backward()
    with pytest.raises(RuntimeError, match="already walked"):
        s.sum().backward()


def test_under_autocast_it_is_the_two_operations(device):
    (x, r, w, b), _ = leaves((4, 8), gg.float32, device)
    half = x.to(gg.bfloat16)
    with gg.autocast(gg.device(device).type, gg.bfloat16):
        for own, other in ((half, half), (half, r), (x, r)):
            s = own + other
            found, wanted = F.add_layer_norm(own, other, (8,), w, b), (F.layer_norm(s, (8,), w, b), s)
            assert [t.dtype for t in found] == [t.dtype for t in wanted]
            for a, c in zip(found, wanted, strict=True):
                np.testing.assert_array_equal(host(a), host(c))


@pytest.mark.parametrize("way", ["layer", "rms"])
def test_compiled_equals_eager(device, way):
    if device == "pretend":
        pytest.skip("what is compiled there are the same calls")
    found = []
    for compiled in (False, True):
        tensors, _ = leaves((6, 32), gg.float32, device)

        def step(x, r, w, b):
            y, s = WAYS[way](x, r, w, b)
            return gg.autograd.grad((y * s).sum(), [x, r, w])

        function = gg.compile(step) if compiled else step
        for _ in range(3):
            out = function(*tensors)
        found.append([host(t) for t in out])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


def test_what_does_not_fit(device):
    x = gg.ones(2, 4, device=device)
    with pytest.raises(RuntimeError, match=r"add_layer_norm: input of shape \(2, 4\) does not end in"):
        F.add_layer_norm(x, x, (3,))
    with pytest.raises(RuntimeError, match="add_rms_norm: expected weight of shape"):
        F.add_rms_norm(x, x, (4,), gg.ones(3, device=device))
    with pytest.raises(TypeError, match="add_layer_norm: expected floating-point tensors, got int64"):
        F.add_layer_norm(x.long(), x, (4,))
    with pytest.raises(RuntimeError, match="add_layer_norm: the shapes of input and residual do not broadcast"):
        F.add_layer_norm(x, gg.ones(3, 4, device=device), (4,))


def test_threads_do_not_change_a_bit():
    from gpugrad.backends.cpu_rows import SHARED

    rows = 4 * SHARED // 256
    found = []
    before = gg.get_num_threads()
    try:
        for threads in (1, 2, 3):
            gg.set_num_threads(threads)
            tensors, rng = leaves((rows, 256), gg.float32, "cpu")
            outs, gradients = results(tensors, WAYS["layer"], rng)
            found.append([host(t) for t in (*outs, *gradients)])
    finally:
        gg.set_num_threads(before)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
