"""Attention tile by tile, as backends offer it, against the definition in terms of other ops."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest

import gpugrad as gg
import gpugrad.nn.functional as F
from gpugrad.backends import cpu, cpu_attention, host_build, opencl
from gpugrad.backends.cpu_attention import FEW
from gpugrad.errors import DeviceError
from tests import gradients

SPEC = cpu.open(0)

# batch, heads, heads of keys, queries, keys, width, width of values
SHAPES = {
    "small": (2, 4, 4, 5, 7, 16, 16),
    "groups": (2, 6, 2, 33, 70, 16, 16),
    "tiles": (1, 1, 1, 300, 1100, 16, 16),
    "one more than a tile": (1, 2, 1, 513, 513, 16, 16),
    "gpt": (12, 4, 4, 64, 64, 16, 16),
    "one query": (3, 4, 1, 1, 300, 16, 16),
    "one key": (2, 2, 2, 9, 1, 16, 16),
}
#: other widths, each of which a device compiles kernels for
WIDTHS = {(4, 3): "causal", (20, 33): "full", (64, 64): "float16", (128, 96): "bool mask"}
#: the usual width, short enough to be repeated by tools/check_oclgrind.py
USUAL = (1, 1, 1, 9, 12, 64, 64)
OPTIONS = {
    "full": {},
    "causal": {"is_causal": True},
    "bool mask": {"mask": "bool"},
    "rows that see nothing": {"mask": "blind"},
    "added mask": {"mask": "float"},
    "dropout": {"dropout_p": 0.3},
    "causal dropout": {"is_causal": True, "dropout_p": 0.5},
    "scale": {"scale": -0.4},
    "float16": {"dtype": "float16"},
    "bfloat16, causal": {"dtype": "bfloat16", "is_causal": True},
    "float16 mask": {"dtype": "float16", "mask": "float"},
}
#: of the largest number, of what is rounded once to the dtype
TOLERANCE = {"float32": 4e-6, "float16": 2e-3, "bfloat16": 1.6e-2}


def mask_of(kind, shape, device):
    _, heads, _, queries, keys, *_ = shape
    rng = np.random.default_rng(2)
    if kind == "bool":
        return gg.tensor((rng.random((queries, keys)) > 0.3) | (np.arange(keys) == 0), device=device)
    if kind == "blind":
        seen = rng.random((shape[0], 1, queries, keys)) > 0.3
        return gg.tensor(seen & (np.arange(queries)[:, None] % 3 > 0), device=device)
    if kind == "float":
        return gg.tensor(rng.standard_normal((heads, 1, keys)).astype("f4"), device=device)
    return None


class Counted:
    """A backend's routines for attention, counted; or none of them."""

    def __init__(self, monkeypatch, device, plain):
        self.calls = []
        backend = gg.zeros(1, device=device)._backend
        offer = backend.offer

        def counting(name):
            routine = offer(name)
            if not name.startswith("attention") or routine is None:
                return routine
            if plain:
                return None
            self.calls.append(name)
            return routine

        monkeypatch.setattr(backend, "offer", counting)


def offers(device):
    return gg.zeros(1, device=device)._backend.offer("attention") is not None


def results(device, shape, mask=None, dtype="float32", **options):
    batch, heads, groups, queries, keys, width, values = shape
    rng = np.random.default_rng(1)

    def tensor(*sizes):
        return gg.tensor(rng.standard_normal(sizes).astype("f4"), device=device).to(getattr(gg, dtype)).requires_grad_()

    q, k, v = (
        tensor(batch, heads, queries, width),
        tensor(batch, groups, keys, width),
        tensor(batch, groups, keys, values),
    )
    g = gg.tensor(rng.standard_normal((batch, heads, queries, values)).astype("f4"), device=device)
    gg.manual_seed(3)
    y = F.scaled_dot_product_attention(q, k, v, mask_of(mask, shape, device), enable_gqa=heads != groups, **options)
    (y.float() * g).sum().backward()
    return [x.float().detach().cpu().numpy() for x in (y, q.grad, k.grad, v.grad)]


def check_equal(monkeypatch, device, shape, options):
    """By the routine (on the CPU where few weights are kept, where none are, and by compiled kernels) and by the
    definition."""
    found = []
    ways = ["tiles", "plain"]
    if device == "cpu":
        ways = ["kept", *(["kernels"] if host_build.compiler() else []), *ways]
    for way in ways:
        with monkeypatch.context() as patch:
            counted = Counted(patch, device, way == "plain")
            if device == "cpu":
                patch.setattr(gg.zeros(1)._backend, "kernels_from", 1 if way == "kernels" else None)
                patch.setattr(cpu_attention, "KEPT", 0 if way == "tiles" else cpu_attention.KEPT)
            found.append(results(device, shape, **options))
            taken = way != "plain" and (device != "cpu" or shape[3] > FEW)
            assert ("attention_backward" in counted.calls) == taken
    tolerance = TOLERANCE[options.get("dtype", "float32")]
    for one in found[:-1]:
        for got, want in zip(one, found[-1], strict=True):
            # Gradients that cancel to nothing, of one key, are rounding errors of numbers of the size of 1.
            np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * max(1.0, np.abs(want).max()))


@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize("option", list(OPTIONS))
def test_tiles_equal_the_definition(monkeypatch, device, shape, option):
    if not offers(device):
        pytest.skip("no routine there")
    check_equal(monkeypatch, device, SHAPES[shape], OPTIONS[option])


@pytest.mark.parametrize("widths", list(WIDTHS))
def test_widths(monkeypatch, device, widths):
    if not offers(device):
        pytest.skip("no routine there")
    check_equal(monkeypatch, device, (2, 2, 1, 70, 90, *widths), OPTIONS[WIDTHS[widths]])


def test_the_usual_width(monkeypatch, device):
    if not offers(device):
        pytest.skip("no routine there")
    check_equal(monkeypatch, device, USUAL, {})


def test_dropout_draws_the_bits_of_dropout(device):
    """With values that are the identity the result is the weights, dropped."""
    n = 70
    q = gg.zeros(2, 3, 9, 4, device=device)
    v = gg.eye(n, device=device).expand(2, 3, n, n)
    gg.manual_seed(11)
    got = F.scaled_dot_product_attention(q, gg.zeros(2, 3, n, 4, device=device), v, dropout_p=0.25).cpu().numpy()
    gg.manual_seed(11)
    want = F.dropout(gg.full((2, 3, 9, n), 1 / n), 0.25).numpy()
    np.testing.assert_allclose(got, want, rtol=1e-6)
    np.testing.assert_array_equal(got == 0, want == 0)
    gg.manual_seed(11)
    F.scaled_dot_product_attention(q[:0], gg.zeros(0, 3, n, 4, device=device), v[:0], dropout_p=0.25)
    F.scaled_dot_product_attention(q, q, q, dropout_p=1.0)
    assert gg.get_rng_state()[1] == 0  # nothing random: nothing drawn


def layouts(device):
    """The same queries, keys and values in several ways, with the numbers of leading dimensions."""
    rng = np.random.default_rng(7)
    packed = gg.tensor(
        rng.standard_normal((2, 11, 3, 4, 8)).astype("f4"), device=device
    )  # batch, position, which, head
    parts = [packed[:, :, i].transpose(1, 2) for i in range(3)]
    yield "packed", parts
    yield "contiguous", [x.contiguous() for x in parts]
    yield "transposed", [x.transpose(-1, -2).contiguous().transpose(-1, -2) for x in parts]
    yield "every second", [gg.stack([x, x], -1).flatten(-2)[..., ::2] for x in parts]
    yield "three", [x.reshape(8, 11, 8) for x in parts]
    yield "five", [x.reshape(2, 2, 2, 11, 8) for x in parts]
    yield "six, not mergeable", [x.reshape(2, 2, 2, 11, 8).transpose(0, 2).unsqueeze(1) for x in parts]


def test_layouts(device):
    found = {}
    for name, parts in layouts(device):
        parts = [x.detach().requires_grad_() for x in parts]
        y = F.scaled_dot_product_attention(*parts, is_causal=True)
        (y * y).sum().backward()
        arrays = [x.detach().cpu().numpy() for x in (y, *(p.grad for p in parts))]
        if "six" in name:
            arrays = [a[:, 0].swapaxes(0, 2) for a in arrays]
        found[name] = [a.reshape(2, 4, 11, 8) for a in arrays]
    for name, arrays in found.items():
        for got, want in zip(arrays, found["contiguous"], strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5, err_msg=name)


def test_the_result_lies_as_the_queries_do(device):
    """So that to join the heads afterwards, and in the backward pass, is no copy."""
    if not offers(device) or device == "pretend":
        pytest.skip("no routine there")
    x = gg.randn(2, 11, 4, 8, device=device, requires_grad=True)
    q = x.transpose(1, 2)
    y = F.scaled_dot_product_attention(q, q, q)
    assert y.transpose(1, 2).is_contiguous() and y.shape == (2, 4, 11, 8)


def test_broadcast_leading_dimensions(monkeypatch, device):
    found = []
    for plain in (False, True):
        with monkeypatch.context() as patch:
            Counted(patch, device, plain)
            rng = np.random.default_rng(5)
            q, k, v = (
                gg.tensor(rng.standard_normal(s).astype("f4"), device=device, requires_grad=True)
                for s in ((1, 3, 9, 4), (5, 1, 8, 4), (3, 8, 6))
            )
            gg.manual_seed(2)
            y = F.scaled_dot_product_attention(q, k, v, gg.ones(5, 1, 1, 8, device=device), dropout_p=0.5)
            y.square().sum().backward()
            found.append([x.detach().cpu().numpy() for x in (y, q.grad, k.grad, v.grad)])
    for got, want in zip(*found, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("option", ["causal", "bool mask", "dropout"])
def test_second_derivatives(option):
    options = dict(OPTIONS[option])
    shape = (1, 2, 1, 3, 4, 2, 3)
    mask = mask_of(options.pop("mask", None), shape, "cpu")

    def function(q, k, v):
        gg.manual_seed(1)
        return F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True, **options)

    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(s) for s in ((1, 2, 3, 2), (1, 1, 4, 2), (1, 1, 4, 3))]
    gradients.check_first(function, inputs)
    gradients.check_second(function, inputs)


def test_a_mask_that_wants_a_gradient(device):
    q = gg.randn(2, 3, 4, device=device)
    mask = gg.zeros(3, 3, device=device, requires_grad=True)
    F.scaled_dot_product_attention(q, q, q, mask)[..., 0].sum().backward()
    assert mask.grad.abs().sum().item() > 0
    np.testing.assert_allclose(mask.grad.sum(-1).cpu().numpy(), 0, atol=1e-6)  # weights of a row add up to 1


def test_widths_beyond_the_kernels(device):
    q, k, v = (gg.randn(1, 2, n, 200, device=device) for n in (3, 5, 5))
    want = F.scaled_dot_product_attention(*(x.cpu().double() for x in (q, k, v)))
    got = F.scaled_dot_product_attention(q, k, v)
    np.testing.assert_allclose(got.cpu().numpy(), want.numpy(), rtol=1e-4, atol=1e-5)


def test_special_values(device):
    """Not a number stays in its row; scores that overflow make one, as in the definition."""
    q = gg.ones(1, 3, 2, device=device)
    q[0, 1, 0] = float("nan")
    q[0, 2, 0] = float("inf")
    y = F.scaled_dot_product_attention(q, gg.ones(1, 4, 2, device=device), gg.ones(1, 4, 2, device=device))
    bad = np.isnan(y.cpu().numpy()).all(-1)[0]
    np.testing.assert_array_equal(bad, [False, True, True])


def test_compiled_equals_eager():
    q, k, v = (gg.randn(2, 2, 6, 4) for _ in range(3))

    def step(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=0.3)

    compiled = gg.compile(step)
    for _ in range(3):
        state = gg.get_rng_state()
        want = step(q, k, v)
        after = gg.get_rng_state()
        gg.set_rng_state(state)
        got = compiled(q, k, v)
        assert gg.get_rng_state() == after
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("least", [None, 1], ids=["NumPy", "kernels"])
def test_threads_do_not_change_a_bit(least, monkeypatch):
    if least and not host_build.compiler():
        pytest.skip("no C compiler")
    monkeypatch.setattr(gg.zeros(1)._backend, "kernels_from", least)
    found = []
    for threads in (1, 2):
        before = gg.get_num_threads()
        gg.set_num_threads(threads)
        try:
            found.append(results("cpu", (2, 4, 2, 300, 700, 16, 16), dropout_p=0.2))
        finally:
            gg.set_num_threads(before)
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


# -- memory ----------------------------------------------------------------------------------------


def peak(device, length, causal=False):
    inputs = [gg.randn(1, length, 64, device=device).requires_grad_() for _ in range(3)]
    backend = inputs[0]._backend
    gc.collect()
    own = sum(x.numel() * 4 for x in inputs)

    def work():
        F.scaled_dot_product_attention(*inputs, is_causal=causal).backward(inputs[0].detach())
        backend.synchronize()

    if device == "cpu":  # all that NumPy allocates, what a routine drops included
        backend.release_cached()
        tracemalloc.start()
        try:
            work()
            return own + tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    start = backend.memory_stats()["allocated"]
    backend.reset_peak_memory_stats()
    work()
    return own + backend.memory_stats()["peak"] - start


def test_the_scores_of_one_head_are_cut_into_tiles_too(monkeypatch):
    monkeypatch.setattr(gg.zeros(1)._backend, "kernels_from", None)
    # The least of several: in one of them a thread may have its first tiles, whose memory it keeps.
    short, long = (min(peak("cpu", n) for _ in range(4)) for n in (1024, 2048))
    assert long < 3 * short  # and 4 times it, were it the square


@pytest.mark.parametrize("causal", [False, True])
def test_memory_grows_with_the_sequence_not_its_square(device, causal):
    if not offers(device):
        pytest.skip("no routine there")
    short, long = (peak(device, n, causal) for n in (2048, 8192))
    assert long < 0.5 * 8192 * 8192 * 4  # the definition takes three matrices of weights
    assert long < 4.5 * short


# -- kernels with the launch shapes of both kinds of device -------------------------------------------


@pytest.fixture(scope="module", params=["cpu-shapes", "gpu-shapes", "64-bit"])
def backend(request):
    if not {"opencl", "all"} & set(request.config.getoption("--device").split(",")):
        pytest.skip("needs OpenCL")
    try:
        found = opencl.open(0, cpu_shapes=request.param == "cpu-shapes")
    except DeviceError as error:
        pytest.skip(str(error))
    found.force_wide = request.param == "64-bit"
    return found


KERNELS = {
    "full": ((2, 4, 4, 5, 7, 8, 6), None, False, None),
    "groups, causal": ((1, 6, 2, 70, 70, 16, 20), None, True, None),
    "dropout": ((1, 2, 1, 40, 67, 33, 5), None, False, (0.4, 5, 9)),
    "wide": ((1, 1, 1, 37, 41, 128, 100), None, False, None),
    "bool": ((2, 2, 2, 20, 30, 12, 12), "bool", False, None),
    "added": ((2, 2, 1, 33, 18, 12, 12), "float", False, (0.2, 1, 2)),
    "sees nothing": ((2, 2, 1, 33, 18, 12, 12), "blind", False, None),
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(n, "float32") for n in KERNELS] + [("groups, causal", "float64"), ("added", "float64"), ("bool", "float16")],
)
def test_kernels_of_both_shapes(backend, name, dtype, monkeypatch):
    monkeypatch.setattr(cpu_attention, "KEPT", 0)  # logarithms are what the kernels give
    shape, kind, causal, dropout = KERNELS[name]
    dtype = np.dtype(dtype)
    if not backend.supports(dtype):
        pytest.skip("no float64 there")
    work = np.dtype(np.float32) if dtype.itemsize == 2 else dtype
    batch, heads, groups, queries, keys, width, values = shape
    rng = np.random.default_rng(1)
    q, k, v, g = (
        rng.standard_normal(s).astype(dtype)
        for s in (
            (batch, heads, queries, width),
            (batch, groups, keys, width),
            (batch, groups, keys, values),
            (batch, heads, queries, values),
        )
    )
    given = mask_of(kind, shape, "cpu")
    mask = None
    if given is not None:
        mask = np.array(np.broadcast_to(given.numpy(), (batch, heads, queries, keys)))
        mask = mask if mask.dtype == bool else mask.astype(work)
    put = backend.from_host
    there = None if mask is None else put(mask)
    options = causal, 0.3, dropout
    want = SPEC.fused_attention(q, k, v, mask, *options)
    got = backend.fused_attention(put(q), put(k), put(v), there, *options)
    # The result as rounded by one side: the backward passes are then given the same.
    arrays = g, q, k, v, *want
    want_back = SPEC.fused_attention_backward(*arrays, mask, *options, (True, True, True))
    got_back = backend.fused_attention_backward(*map(put, arrays), there, *options, (True, True, True))
    tolerance = {"float32": 4e-6, "float64": 1e-12, "float16": 2e-3}[dtype.name]
    for a, b in zip((*got, *got_back), (*want, *want_back), strict=True):
        a = backend.to_host(a).astype(np.float64)
        b = b.astype(np.float64)
        limit = np.abs(b[np.isfinite(b)]).max(initial=1.0)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * limit)
    some = backend.fused_attention_backward(*map(put, arrays), there, *options, (False, True, False))
    assert some[0] is None and some[2] is None
