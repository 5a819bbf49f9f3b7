"""What an audit against PyTorch's own op samples found: a small case of each kind, in both libraries."""

import warnings

import numpy as np
import pytest
from ml_dtypes import bfloat16

import gpugrad as gg
from tests.parity import check

RNG = np.random.default_rng(20)
ARRAYS = {
    "x": RNG.normal(size=(3, 4)).astype(np.float32),
    "y": RNG.normal(size=(3, 4)).astype(np.float32),
    "v": RNG.normal(size=4).astype(np.float32),
    "w": RNG.normal(size=3).astype(np.float32),
    "m": RNG.normal(size=(3, 5)).astype(np.float32),
    "n": RNG.normal(size=(5, 4)).astype(np.float32),
    "batch": RNG.normal(size=(2, 3, 5)).astype(np.float32),
    "other": RNG.normal(size=(2, 5, 4)).astype(np.float32),
    "both": RNG.normal(size=(2, 3, 4)).astype(np.float32),
    "s": np.array(1.5, np.float32),
    "i": np.array([[3, -1, 4], [1, -5, 9]]),
    "u": np.array([[3, 1, 4], [1, 5, 9]], np.uint8),
    "p": np.array([True, False, True]),
    "q": np.array([[True, False, True], [False, False, True]]),
    "images": np.zeros((0, 4, 6, 6), np.float32),
    "lines": np.zeros((2, 4, 0), np.float32),
    "nothing": np.zeros((0,), np.float32),
    "volumes": np.zeros((0, 2, 4, 4, 4), np.float32),
    "c": np.array([[1, -1, 1], [-1, 1, -1]], np.float32),
    "infinite": np.array([[np.inf, 1, 2], [0, -np.inf, 3]], np.float32),
    "degrees": np.array([True, True, False]),
    "tenth": np.full(5, 0.1, np.float32),
    "whole": np.array([1.0, 0.3, 6.0, -1.0, -0.3], np.float32),
    "edge": np.array([0.0, 0.0, 0.0, np.inf, np.inf], np.float32),
    "unit": np.array([1.0, -1.0, 0.0, 5.0, -5.0], np.float32),
    "picture": RNG.normal(size=(2, 3, 5, 6)).astype(np.float32),
    "grid": RNG.uniform(-1.2, 1.2, (2, 3, 4, 2)).astype(np.float32),
    "volume": RNG.normal(size=(1, 2, 3, 4, 5)).astype(np.float32),
    "places": RNG.uniform(-1.2, 1.2, (1, 2, 3, 2, 3)).astype(np.float32),
    "channels": RNG.uniform(0.5, 2.0, 3).astype(np.float32),
}

# A call in the order of arguments that PyTorch has deprecated, but takes.
OLD_ORDERS = [
    "T.add(x, 2, y)",
    "T.add(x, 2, 3)",
    "x.clone().add_(0.5, y)",
    "x.add(-1.5, y)",
    "T.sub(x, 2, y)",
    "x.clone().sub_(0.5, y)",
    "T.addcmul(x, 3, y, y)",
    "x.clone().addcmul_(-0.5, y, y)",
    "T.addcdiv(x, 3, y, s)",
    "x.clone().addcdiv_(-0.1, y, s)",
    "T.addmm(2, x, 3, m, n)",
    "T.addmm(2, x, m, n)",
    "x.addmm(2, 0.5, m, n)",
    "x.clone().addmm_(2, m, n)",
    "x.clone().addmm_(2, 0.5, m, n)",
    "T.addmv(2, w, 3, x, v)",
    "w.clone().addmv_(2, x, v)",
    "T.addr(2, x, 3, w, v)",
    "x.clone().addr_(2, 3, w, v)",
    "T.baddbmm(2, both, 0.5, batch, other)",
    "both.clone().baddbmm_(2, 0.5, batch, other)",
    "T.addbmm(2, x, 3, batch, other)",
    "x.clone().addbmm_(2, batch, other)",
]

CASES = [
    # near misses of those are errors in both
    "T.add(x, y, 2)",
    "x.clone().sub_(y, 2)",
    "x.clone().addcmul_(y, y, 2)",
    "T.addmm(x, m, n, 2, 3)",
    "T.addmm(2, 3, 4, x, m, n)",
    # two numbers
    "T.add(3, 2)",
    "T.add(True, True)",
    "T.sub(3.0, 2)",
    "T.mul(3, 2.5)",
    "T.div(3, 2)",
    "T.div(3, 2, rounding_mode='floor')",
    "T.true_divide(7, 2)",
    "T.floor_divide(7.0, 2)",
    "T.pow(3.0, 2)",
    "T.maximum(3, 2)",
    # what is no tensor
    "T.sum([1.0])",
    "T.sort([1])",
    "T.cat([1, 2])",
    "T.argmax(None)",
    "T.matmul(x, [1.0])",
    "x.add([1])",
    # bools have no difference, whatever the other operand is
    "T.sub(p, 1.5)",
    "T.sub(p, 1)",
    "T.sub(x, True)",
    "w - p",
    "1.5 - p",
    "w.clone().sub_(True)",
    "w.clone().sub_(p)",
    # quotients rounded down are those of the exact quotient
    "T.div(whole, tenth, rounding_mode='floor')",
    "T.div(whole, 0.1, rounding_mode='floor')",
    "T.div(whole, tenth, rounding_mode='trunc')",
    "T.div(unit, edge, rounding_mode='floor')",
    "T.div(p, tenth[:3], rounding_mode='floor')",
    "whole.clone().div_(tenth, rounding_mode='floor')",
    # from a half on, lerp counts from the end
    "T.lerp(infinite[0, 1:], w[1:], 1.0)",
    "T.lerp(x, y, 0.25)",
    "T.lerp(x, y, 0.75)",
    "T.lerp(x, y, -2.0)",
    "T.lerp(x, y, v)",
    "(T.lerp(x, y, 1.0) == y)",
    # integers
    "T.linspace(4.3, -3, 5, dtype=T.int64)",
    "T.linspace(-3.9, 4.9, 7, dtype=T.int32)",
    "T.linspace(s, -3.5, 4, dtype=T.int64)",
    "T.linspace(0, 300, 4, dtype=T.uint8)",
    "T.logspace(0, 1.2, 2, dtype=T.int64)",
    "T.logspace(1.9, 4.9, 6, base=2.5, dtype=T.int64)",
    "T.nn.functional.hardtanh(i, -1.5, 2.5)",
    "T.nn.functional.hardtanh(i)",
    "T.nn.functional.hardtanh(u, 2, 4)",
    "T.nn.functional.hardtanh(u)",
    "T.nn.functional.hardtanh(p)",
    "T.nn.functional.relu6(i)",
    "u.sum_to_size(1, 3)",
    "u.sum_to_size(2, 3)",
    "u.sum_to_size(3)",
    "T.tensor(3, dtype=T.uint8).sum_to_size(())",
    "T.tensordot(u[:, :1], u[:, :2].T, dims=1)",
    "T.nn.functional.bilinear(u[0], u[1], u.reshape(2, 3, 1).expand(2, 3, 3))",
    "T.unravel_index(u, (4, 1073741824))",
    "T.addr(q, q[:, 0], p, beta=3, alpha=2)",
    "T.addr(q, q[:, 0], p, beta=0)",
    "T.addr(q, q[:, 0], p, beta=0.5)",
    "T.addr(i, i[:, 0], i[0], alpha=0.5)",
    "T.special.chebyshev_polynomial_t(w, degrees)",
    "T.special.hermite_polynomial_h(p, degrees)",
    "T.special.legendre_polynomial_p(w, degrees)",
    "T.special.chebyshev_polynomial_t(w, T.tensor([3.0, nan, inf]))",
    "T.special.laguerre_polynomial_l(w, T.tensor([2.0, -inf, 1.0]))",
    "T.special.hermite_polynomial_h(T.tensor([0.5, 3.0]), T.tensor([12.0, 1e12]))",
    "T.tile(s, ())",
    # sizes of zero
    "T.nn.functional.group_norm(images, 2)",
    "T.nn.functional.group_norm(lines, 2)",
    "T.nn.functional.group_norm(T.zeros(0, 2), 1)",
    "T.nn.functional.pixel_shuffle(images, 2)",
    "T.nn.functional.pixel_shuffle(T.zeros(1, 0, 1, 1), 1)",
    "T.nn.functional.pixel_unshuffle(T.zeros(1, 1, 0, 1), 1)",
    "T.nn.functional.fractional_max_pool2d(images, 2, output_size=3)",
    "T.nn.functional.fractional_max_pool3d(volumes, 2, output_size=2)",
    "T.nn.functional.max_unpool2d(images, T.zeros(0, 4, 6, 6, dtype=T.int64), 2)",
    "T.nn.functional.batch_norm(nothing, T.zeros(0), T.ones(0), training=True)",
    "T.nn.functional.batch_norm(nothing, T.zeros(0), T.ones(0))",
    # odds and ends
    "T.diff(x, 0, 0, prepend=x, append=y)",
    "T.diff(x, 2, 0, prepend=x, append=y)",
    "T.gradient(v, spacing=None)",
    "T.linalg.vander(s, N=3)",
    "T.linalg.vander(s)",
    "(x * 10).round_(decimals=1)",
    "(x * 1000).round_(decimals=-2)",
    "T.nn.functional.multi_margin_loss(s, T.tensor(0))",
    "T.nn.functional.multi_margin_loss(v, T.tensor([2]), reduction='none')",
    "T.nn.functional.multi_margin_loss(v, T.tensor(2), reduction='none')",
    "T.nn.functional.hinge_embedding_loss(infinite, c, reduction='none')",
    "T.normal(1.0, 2.0, (2, 3), layout=T.strided).shape",
    # the names underneath
    "T.constant_pad_nd(x, (1, 2, -1, 0), 1.5)",
    "T.constant_pad_nd(i, (1, 0))",
    "T.nonzero_static(i > 0, size=7)",
    "(i > 0).nonzero_static(size=2, fill_value=9)",
    "T.nonzero_static(i, size=-1)",
    "T.native_layer_norm(x, (4,), v, None, 1e-5)",
    "T.native_layer_norm(both, (3, 4), None, y, 1e-5)",
    "T.native_group_norm(picture, channels, None, 2, 3, 30, 3, 1e-5)",
    "T.native_batch_norm(picture, channels, None, None, None, True, 0.1, 1e-5)",
    "T.native_batch_norm(picture, None, w, w, channels, False, 0.1, 1e-5)",
    "T.grid_sampler(picture, grid, 2, 1, False)",
    "T.grid_sampler_2d(picture, grid, 0, 0, True)",
    "T.grid_sampler_3d(volume, places, 1, 2, False)",
]

WINDOWS = [
    f"T.signal.windows.{call}"
    for call in (
        "hann(0)",
        "hann(1, sym=False)",
        "hann(7)",
        "hann(6, sym=False)",
        "hamming(7, dtype=T.float64)",
        "hamming(-1)",
        "hann(4, dtype=T.int64)",
        "bartlett(6)",
        "bartlett(6, sym=False)",
        "blackman(7)",
        "nuttall(8, sym=False)",
        "cosine(5)",
        "cosine(5, sym=False)",
        "exponential(6, tau=2.0)",
        "exponential(6, center=1.0, tau=2.0, sym=False)",
        "exponential(6, center=1.0)",
        "gaussian(6, std=1.5, sym=False)",
        "gaussian(6, std=0.0)",
        "kaiser(6, beta=8.0)",
        "kaiser(6, sym=False)",
        "general_cosine(6, a=[0.5, 0.3, 0.2])",
        "general_hamming(6, alpha=0.6, sym=False)",
    )
]


@pytest.mark.parametrize("expression", CASES)
def test_as_pytorch(expression, device):
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        check(expression, ARRAYS, torch, device, rtol=1e-4)


@pytest.mark.parametrize("expression", WINDOWS)
def test_windows(expression):
    torch = pytest.importorskip("torch")
    check(expression, ARRAYS, torch)


@pytest.mark.parametrize("expression", OLD_ORDERS)
def test_factors_before_what_they_multiply(expression):
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():  # PyTorch warns once per process
        warnings.simplefilter("ignore", UserWarning)
        check(expression, ARRAYS, torch, rtol=1e-4)


def test_the_old_order_warns_and_says_the_new_one():
    a, b = gg.ones(2), gg.ones(2)
    with pytest.warns(UserWarning, match=r"addcmul: .*addcmul\(\.\.\., value=0\.5\)"):
        assert gg.addcmul(a, 0.5, b, b).tolist() == [1.5, 1.5]
    with pytest.warns(UserWarning, match="alpha=2"):
        assert a.add_(2, b).tolist() == [3.0, 3.0]


def test_an_attribute_missing_elsewhere_is_no_type_error():
    """Only what was given and is no tensor is blamed on the call."""

    class Odd:
        def __index__(self):
            return object().missing

    with pytest.raises(AttributeError, match="missing"):
        gg.unsqueeze(gg.ones(2), Odd())
    with pytest.raises(TypeError, match="sum: expected a Tensor, got list"):
        gg.sum([1.0])


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("align_corners", [False, True])
def test_bytes_are_resampled_in_integers(mode, antialias, align_corners, device):
    torch = pytest.importorskip("torch")
    image = np.random.default_rng(3).integers(0, 256, (1, 3, 7, 9)).astype(np.uint8)
    # PyTorch's weights of the plain cubic are those of float32, a unit in the last of sixteen bits apart.
    loose = {"rtol": 1e-9, "atol": 1} if mode == "bicubic" and not antialias else {}
    for size in ((3, 3), (2, 5), (7, 4), (10, 12)):
        check(
            f"T.nn.functional.interpolate(image, {size}, mode={mode!r}, align_corners={align_corners}, "
            f"antialias={antialias})",
            {"image": image},
            torch,
            device,
            **loose,
        )


def test_a_mean_of_four_bytes_is_rounded_up_at_halves():
    image = gg.tensor([[[[1, 2], [2, 2]]]], dtype=gg.uint8)
    assert gg.nn.functional.interpolate(image, (1, 1), mode="bilinear", align_corners=False).item() == 2
    assert gg.nn.functional.interpolate(image[..., :1, :], (1, 1), mode="bilinear").item() == 2


ONCE = {
    "addcmul": lambda T, a, b, c: T.addcmul(a, b, c, value=0.3),
    "addcdiv": lambda T, a, b, c: T.addcdiv(a, b, c, value=0.3),
    "lerp": lambda T, a, b, c: T.lerp(a, b, 0.3),
    "lerp by a tensor": lambda T, a, b, c: T.lerp(a, b, c),
    "gelu": lambda T, a, b, c: T.nn.functional.gelu(a),
    "gelu by tanh": lambda T, a, b, c: T.nn.functional.gelu(a, approximate="tanh"),
    "silu": lambda T, a, b, c: T.nn.functional.silu(a),
    "batch_norm": lambda T, a, b, c: T.nn.functional.batch_norm(a, b[0], c[0].abs(), c[1], b[1]),
    "adaptive_avg_pool2d": lambda T, a, b, c: T.nn.functional.adaptive_avg_pool2d(a[None], (5, 3)),
}


@pytest.mark.parametrize("name", ONCE)
@pytest.mark.parametrize("dtype", [np.float16, bfloat16])
def test_half_types_are_rounded_once(name, dtype, device):
    """The result is the nearest, or the one beside it where float32 was just on the other side of a tie."""
    r = np.random.default_rng(4)
    signs = r.choice([-1.0, 1.0], (3, 8, 7))
    a, b, c = (signs * r.uniform(0.2, 2.0, (3, 8, 7))).astype(dtype)
    with gg.device(device):
        got = ONCE[name](gg, *(gg.tensor(t) for t in (a, b, c)))
        assert got.dtype is gg.tensor(a).dtype
    exact = ONCE[name](gg, *(gg.tensor(t.astype(np.float64)) for t in (a, b, c))).numpy()
    spacing = np.maximum(np.abs(exact), 1e-2) * (2.0**-10 if dtype is np.float16 else 2.0**-7)
    error = np.abs(got.cpu().to(gg.float64).numpy() - exact)
    assert (error <= 0.51 * spacing + 1e-6).all()


def test_rounded_quotients_have_a_gradient_of_zeros():
    x = gg.tensor([7.0, -7.0], requires_grad=True)
    y = gg.tensor([2.0, 2.0], requires_grad=True)
    out = gg.div(x, y, rounding_mode="floor")
    assert out.tolist() == [3.0, -4.0]
    out.sum().backward()
    assert x.grad.tolist() == [0.0, 0.0] and y.grad.tolist() == [0.0, 0.0]


def test_polynomials_of_absurd_degree_are_refused():
    with pytest.raises(NotImplementedError, match="degree 1000000 "):
        gg.special.chebyshev_polynomial_t(gg.tensor([1.0]), 1_000_000)
    assert gg.special.hermite_polynomial_h(gg.tensor([3.0]), 1_000_000).isnan().all()
