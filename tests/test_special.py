"""Special functions: known values, special points, derivatives, names and types as in PyTorch."""

from __future__ import annotations

import importlib.util
import math
import pathlib

import numpy as np
import pytest

import gpugrad as gg
from tests import parity

INF, NAN = math.inf, math.nan

# Computed with mpmath at 40 digits; exactly representable arguments, or close enough for the condition there.
KNOWN = {
    "erfinv": [(0.5, 0.4769362762044699), (-0.999, -2.3267537655135246), (1e-12, 8.86226925452758e-13)],
    "erfcx": [(-3.0, 16205.988853999586), (0.25, 0.7703465477309968), (3.5, 0.1552936556088943)],
    "ndtr": [(-6.0, 9.86587645037698e-10), (0.5, 0.6914624612740131)],
    "ndtri": [(1e-10, -6.361340902404057), (0.75, 0.6744897501960817)],
    "log_ndtr": [(-30.0, -454.3212439563432), (-1.0, -1.8410216450092636), (2.0, -0.02301290932896349)],
    "gammaln": [(0.0625, 2.7396316219462036), (1.0009765625, -0.0005629031799912047), (3.5, 1.2009736023470743),
                (25.0, 54.78472939811232), (1e10, 220258509288.81058), (-3.5, -1.309006684993042)],
    "digamma": [(-2.75, -1.959055264977997), (0.125, -8.388492663295855), (5.0, 1.5061176684318005),
                (1e6, 13.815510057964191)],
    "i0": [(0.5, 1.0634833707413236), (7.5, 268.16131151518937), (20.0, 43558282.559553534)],
    "i0e": [(-5.0, 0.18354081260932836), (1000.0, 0.012617240455891257)],
    "i1": [(-0.5, -0.2578943053908963), (7.5, 249.58436542268814), (20.0, 42454973.38512777)],
    "i1e": [(-5.0, -0.16397226694454237), (1000.0, 0.012610930256928629)],
    "bessel_j0": [(0.5, 0.9384698072408129), (-5.0, -0.1775967713143383), (30.0, -0.08636798358104021)],
    "bessel_j1": [(0.5, 0.2422684576748739), (-5.0, 0.32757913759146523), (30.0, -0.11875106261662294)],
    "bessel_y0": [(0.5, -0.44451873350670656), (5.0, -0.30851762524903376), (30.0, -0.11729573168666403)],
    "bessel_y1": [(0.5, -1.471472392670243), (5.0, 0.14786314339122683), (30.0, 0.08442557066174723)],
    "modified_bessel_k0": [(0.5, 0.9244190712276659), (5.0, 0.0036910983340425942)],
    "modified_bessel_k1": [(0.5, 1.656441120003301), (5.0, 0.004044613445452165)],
    "airy_ai": [(-5.0, 0.3507610090241143), (-1.5, 0.4642565777488694), (1.0, 0.1352924163128814),
                (3.0, 0.006591139357460719)],
    "entr": [(0.25, 0.34657359027997264)],
    "sinc": [(0.75, 0.30010543871903533)],
}  # fmt: skip
KNOWN_PAIRS = {
    "gammainc": [(0.5, 0.25, 0.5204998778130465), (5.0, 2.0, 0.05265301734371116), (30.0, 45.0, 0.9926628007022035),
                 (2000.0, 1950.0, 0.1313526369567147)],
    "gammaincc": [(0.125, 0.5, 0.07394577771465288), (5.0, 9.0, 0.0549636414951049),
                  (2000.0, 2100.0, 0.013647467683370378)],
    "zeta": [(2.0, 1.0, 1.6449340668482264), (3.5, 0.25, 128.54695896428436), (20.0, 3.0, 2.8771746654611316e-10),
             (3.0, -2.25, -61.94847488703008)],
    "xlog1py": [(2.0, 1e-10, 1.9999999999e-10)],
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [*KNOWN, *KNOWN_PAIRS])
def test_known_values(name, dtype, device):
    if dtype == "float64" and device == "pretend":
        pytest.skip("no float64 there")
    *inputs, want = np.array((KNOWN | KNOWN_PAIRS)[name]).T
    got = getattr(gg.special, name)(*[gg.tensor(x.astype(dtype), device=device) for x in inputs])
    assert got.dtype.name == dtype
    limit = 1e-14 if dtype == "float64" else 2e-6
    np.testing.assert_allclose(got.cpu().double().numpy(), want, rtol=limit)


LIMITS = {
    "erfinv": [(1.0, INF), (-1.0, -INF), (1.5, NAN), (NAN, NAN), (-0.0, -0.0)],
    "erfcx": [(INF, 0.0), (-INF, INF), (NAN, NAN)],
    "ndtri": [(0.0, -INF), (1.0, INF), (-0.5, NAN), (NAN, NAN)],
    "log_ndtr": [(INF, 0.0), (-INF, -INF), (NAN, NAN)],
    "gammaln": [(0.0, INF), (-3.0, INF), (1.0, 0.0), (2.0, 0.0), (INF, INF), (-INF, INF), (NAN, NAN)],
    "digamma": [(0.0, -INF), (-0.0, INF), (-2.0, NAN), (INF, INF), (-INF, NAN), (NAN, NAN)],
    "i0": [(0.0, 1.0), (INF, INF), (-INF, INF), (1000.0, INF), (NAN, NAN)],
    "i0e": [(INF, 0.0), (NAN, NAN)],
    "i1": [(0.0, 0.0), (INF, INF), (-INF, -INF), (NAN, NAN)],
    "i1e": [(INF, 0.0), (-INF, -0.0), (NAN, NAN)],
    "bessel_j0": [(0.0, 1.0), (INF, 0.0), (NAN, NAN)],
    "bessel_j1": [(0.0, 0.0), (INF, 0.0), (NAN, NAN)],
    "bessel_y0": [(0.0, -INF), (-1.0, NAN), (INF, 0.0), (NAN, NAN)],
    "bessel_y1": [(0.0, -INF), (-1.0, NAN), (INF, 0.0), (NAN, NAN)],
    "modified_bessel_k0": [(0.0, INF), (-1.0, NAN), (INF, 0.0), (NAN, NAN)],
    "scaled_modified_bessel_k1": [(0.0, INF), (-1.0, NAN), (INF, 0.0), (NAN, NAN)],
    "airy_ai": [(200.0, 0.0), (INF, 0.0), (-INF, 0.0), (NAN, NAN)],
    "spherical_bessel_j0": [(0.0, 1.0), (INF, 0.0), (-INF, 0.0), (NAN, NAN)],
    "entr": [(0.0, 0.0), (-1.0, -INF), (INF, -INF), (NAN, NAN)],
    "sinc": [(0.0, 1.0), (NAN, NAN)],
    "logit": [(0.0, -INF), (1.0, INF), (2.0, NAN), (NAN, NAN)],
    "xlogy": [(0.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, INF, 0.0), (0.0, NAN, NAN), (1.0, 0.0, -INF), (1.0, -1.0, NAN)],
    "xlog1py": [(0.0, -1.0, 0.0), (0.0, -2.0, 0.0), (0.0, NAN, NAN), (1.0, -1.0, -INF)],
    "zeta": [(1.0, 2.0, INF), (0.5, 2.0, NAN), (2.0, -3.0, INF), (2.5, -0.5, NAN), (3.0, INF, 0.0), (NAN, 1.0, NAN)],
    "gammainc": [(0.0, 0.0, NAN), (0.0, 1.0, 1.0), (1.0, 0.0, 0.0), (1.0, INF, 1.0), (INF, 1.0, 0.0),
                 (INF, INF, NAN), (-1.0, 1.0, NAN), (1.0, -1.0, NAN), (NAN, 0.0, NAN)],
    "gammaincc": [(0.0, 0.0, NAN), (0.0, 1.0, 0.0), (1.0, 0.0, 1.0), (1.0, INF, 0.0), (INF, 1.0, 1.0),
                  (INF, INF, NAN), (-1.0, 1.0, NAN), (1.0, NAN, NAN)],
}  # fmt: skip


@pytest.mark.parametrize("name", LIMITS)
def test_special_points(name, device):
    *inputs, want = np.array(LIMITS[name]).T.astype(np.float32)
    got = getattr(gg.special, name)(*[gg.tensor(x, device=device) for x in inputs]).cpu().numpy()
    np.testing.assert_array_equal(got, want)
    if name in ("erfinv", "i1e"):
        np.testing.assert_array_equal(np.signbit(got), np.signbit(want) | (np.isnan(want) & np.signbit(got)))


ARRAYS = {
    "x": np.array([[0.3, 1.7, 2.4], [0.9, 3.1, 0.05]], np.float32),
    "y": np.array([0.6, 1.2, 4.0], np.float32),
    "p": np.array([0.1, 0.5, 0.95], np.float32),
    "w": np.array([NAN, INF, -INF, 0.0, -0.0, -2.5, 3.0], np.float32),
    "h": np.array([NAN, INF, -INF, 0.25], np.float16),
    "i": np.array([12, -18, 0, 7]),
    "j": np.array([[8], [-3]]),
    "s": np.array([6, 9, -4, 0], np.int16),
    "b": np.array([True, False, True, True]),
    "o": np.array(2.5, np.float32),
    "z": np.array(0),
    "e": np.zeros((0, 3), np.float32),
}
EXPRESSIONS = """
T.polygamma(0, x) | T.polygamma(1, x) | x.polygamma(3) | T.polygamma(n=2, input=x) | T.polygamma(-1, x)
T.polygamma(1, i.abs() + 1) | x.polygamma_(2) | T.special.polygamma(1, o)
T.mvlgamma(x + 2, 3) | (x + 2).mvlgamma(p=2) | T.mvlgamma(x, 0) | T.special.multigammaln(o, 2) | i.mvlgamma_(1)
T.lgamma(i.abs()) | T.digamma(b) | T.erfinv(e) | x.lgamma() | o.digamma() | T.erfinv(b) | p.erfinv_() | x.digamma_()
T.igamma(x, y) | x.igammac(y) | T.special.gammainc(o, x) | T.special.gammaincc(e, y) | x.igamma_(y)
T.i0(x) | x.i0() | x.i0_() | T.special.i0e(h) | T.special.i1(i) | T.special.i1e(x) | T.i0(b)
T.sinc(w) | T.sinc(i) | x.sinc() | T.sinc_(x) | T.sinc(T.tensor(0.0)) | T.sinc(h)
T.logit(p) | T.logit(x, 0.1) | T.logit(x, eps=0.25) | p.logit() | p.logit_(0.2) | T.logit(b) | T.logit(i, 0.1)
T.xlogy(x, y) | T.xlogy(0, y) | T.xlogy(x, 0) | x.xlogy(2.0) | T.xlogy(i, j.abs()) | x.xlogy_(y) | T.xlogy(b, x[:, :1])
T.special.xlog1py(x, y) | T.special.xlog1py(2, y) | T.special.xlog1py(i, 2) | T.special.entr(w) | T.special.entr(i)
T.logaddexp2(x, y) | x.logaddexp2(y) | T.special.expit(x) | T.special.psi(x) | T.special.gammaln(x)
T.special.ndtr(w) | T.special.ndtri(p) | T.special.log_ndtr(x) | T.special.erfcx(x) | T.special.erfinv(p)
T.special.exp2(x) | T.special.expm1(x) | T.special.log1p(x) | T.special.erf(x) | T.special.erfc(i)
T.special.softmax(x, 0) | T.special.softmax(x, dim=1, dtype=T.float16) | T.special.log_softmax(x, 1)
T.special.logsumexp(x, 0) | T.special.logsumexp(x, dim=1, keepdim=True) | T.special.round(x, decimals=1)
T.special.zeta(x + 1, y) | T.special.zeta(2, y) | T.special.zeta(x + 1, 2) | T.special.zeta(i, i)
T.special.bessel_j0(x) | T.special.bessel_j1(i) | T.special.bessel_y0(x) | T.special.bessel_y1(x)
T.special.modified_bessel_i0(x) | T.special.modified_bessel_i1(x) | T.special.modified_bessel_k0(x)
T.special.modified_bessel_k1(x) | T.special.scaled_modified_bessel_k0(x) | T.special.scaled_modified_bessel_k1(x)
T.special.spherical_bessel_j0(x) | T.special.i0(x, out=T.empty(2, 3))
T.nan_to_num(w) | T.nan_to_num(h) | T.nan_to_num(i) | T.nan_to_num(b) | T.nan_to_num(w, 1, 2, 3) | w.nan_to_num()
T.nan_to_num(w, nan=5.0, neginf=-1.0) | w.nan_to_num_(posinf=9) | T.nan_to_num_(w) | T.nan_to_num(e)
T.fmax(x, y) | T.fmin(x, y) | T.fmax(w, w.flip(0)) | T.fmin(w, w.flip(0)) | T.fmax(i, j) | T.fmin(b, b) | x.fmax(o)
T.heaviside(w, o) | T.heaviside(x, e[:0]) | w.heaviside(w) | T.heaviside(i, z) | T.heaviside(w, z) | w.heaviside_(o)
T.ldexp(x, i[:3]) | T.ldexp(i, j) | x.ldexp(y) | x.ldexp_(z) | T.ldexp(x, T.tensor(3)) | i.ldexp_(z)
T.frexp(w) | T.frexp(x).mantissa | x.frexp().exponent | T.frexp(i) | T.frexp(h)
T.nextafter(x, y) | w.nextafter(o) | x.nextafter_(y) | T.nextafter(x, T.tensor(0.0))
T.signbit(w[1:]) | T.signbit(i) | T.signbit(b) | x.signbit() | T.isposinf(w) | w.isneginf() | T.isneginf(i)
T.isposinf(b) | T.isreal(w) | T.isreal(i) | x.isreal() | x.is_conj() | T.is_neg(x) | T.is_conj(x)
T.deg2rad(x) | T.rad2deg(x) | T.deg2rad(i) | x.rad2deg() | x.deg2rad_() | T.rad2deg_(x) | T.deg2rad(b)
T.gcd(i, j) | T.lcm(i, j) | T.gcd(i, s) | i.lcm(s) | i.gcd_(i.flip(0)) | T.lcm_(i, i.flip(0)) | T.gcd(x, x)
T.gcd(b, b) | T.lcm(s, s.flip(0))
T.positive(x) | T.positive(b) | +x | x.positive() | T.real(i) | x.real | T.imag(x) | x.imag | T.conj(x) | x.conj()
T.conj_physical(x) | x.resolve_conj() | T.resolve_neg(x) | T.conj_physical_(x) | x.conj_physical_()
T.angle(w) | T.angle(i) | x.angle() | T.angle(b) | T.rsub(x, 1) | T.rsub(x, y, alpha=2) | T.rsub(i, 3, 2) | T.rsub(b, 1)
T.threshold(x, 1.0, 7.0) | T.threshold(i, 2, 9) | T.threshold_(x, 1.0, 7.0) | T.hardshrink(w) | x.hardshrink(1.0)
T.celu(x - 1, 0.5) | T.celu_(x - 1) | T.selu(x - 1) | T.selu_(x - 1) | T.prelu(x - 1, y[:1]) | (x - 1).prelu(y)
T.rrelu(x - 1) | T.rrelu_(x - 1, 0.2, 0.2, True) | T.nn.functional.leaky_relu_(x - 1, 0.3)
T.nn.functional.elu_(x - 1, 2.0) | T.nn.functional.hardtanh_(x - 1, -0.5, 0.5)
T.abs_(x - 1) | T.exp_(x) | T.relu_(x - 1) | T.clamp_(x, 0.5, 1) | T.clamp_min_(x, 1) | T.neg_(x) | T.sqrt_(x)
T.fill_(x, 3) | T.zero_(x) | T.square_(x) | T.erf_(x) | T.round_(x) | T.fix_(x) | T.negative_(x) | T.xlogy_(x, y)
x.divide_(y) | x.subtract_(y, alpha=2) | x.true_divide_(2) | x.multiply_(y) | x.negative_() | i.divide_(2)
i.divide_(2, rounding_mode="floor")
"""
CASES = [c.strip() for line in EXPRESSIONS.strip().splitlines() for c in line.split(" | ")]


@pytest.mark.parametrize("expression", CASES)
def test_parity(expression, device, torch):
    parity.check(expression, ARRAYS, torch, device)


def test_float_power(device, torch):
    """Always float64; so it is refused on a device without."""
    x, k = gg.tensor(ARRAYS["x"], device=device), gg.tensor([1, 2, 3], device=device)
    if device == "pretend":
        with pytest.raises(gg.DeviceError):
            gg.float_power(x, 2)
        return
    for expression in ("T.float_power(x, 2)", "x.float_power(y)", "T.float_power(2, x)", "T.float_power(i, 0.5)"):
        parity.check(expression, ARRAYS, torch, device, rtol=1e-12)
    assert k.float_power(2).dtype is gg.float64
    assert k.double().float_power_(k).tolist() == [1.0, 4.0, 27.0]
    with pytest.raises(RuntimeError, match="float64"):
        x.float_power_(2)
    with pytest.raises(TypeError):
        gg.float_power(2, 3)


WIDE = {
    "x": np.array([[0.3, 1.7, 2.4], [0.9, 3.1, 0.05]]),
    "y": np.array([0.6, 1.2, 4.0]),
    "p": np.array([0.1, 0.5, 0.95]),
    "w": np.array([NAN, INF, -INF, 0.0, -2.5, 3.0]),
    "k": np.array([[1], [4]]),
}


@pytest.mark.parametrize(
    "expression",
    [
        "T.polygamma(2, x)",
        "T.mvlgamma(x + 2, 3)",
        "T.igamma(k, y)",
        "T.igammac(k, y)",
        "T.special.zeta(k + 1, y)",
        "T.logit(x, 0.2)",
        "T.logit(p)",
        "T.nan_to_num(w)",
        "T.fmax(x, y)",
        "T.fmin(x, y)",
        "T.ldexp(x, k)",
        "T.frexp(x).mantissa",
        "T.float_power(x, y)",
        "T.rsub(x, y, alpha=3)",
        "T.angle(w)",
        "T.xlogy(x, 2.0)",
        "T.special.ndtr(x)",
        "T.hardshrink(x, 1.0)",
        "T.celu(x - 1, 2.0)",
    ],
)
def test_gradients(expression, torch):
    parity.gradients(expression, WIDE, torch)


@pytest.mark.parametrize("name", ["igamma", "igammac"])
def test_gradient_of_the_order_is_refused(name):
    a, x = gg.tensor([1.0, 2.0], requires_grad=True), gg.tensor([0.5, 3.0])
    out = getattr(gg, name)(a, x)
    with pytest.raises(NotImplementedError, match=name):
        out.sum().backward()


def test_sinc_is_smooth_at_zero():
    """Both derivatives by their limits, and no jump where the series ends."""
    x = gg.tensor([0.0, 1e-9, 0.0954, 0.0956], dtype=gg.float64, requires_grad=True)
    (first,) = gg.autograd.grad(gg.sinc(x).sum(), x, create_graph=True)
    (second,) = gg.autograd.grad(first.sum(), x)
    z = np.pi * x.detach().numpy()[2:]
    np.testing.assert_allclose(first.detach().numpy()[:2], [0.0, -(np.pi**2) / 3 * 1e-9], rtol=1e-12)
    np.testing.assert_allclose(first.detach().numpy()[2:], np.pi * (np.cos(z) - np.sin(z) / z) / z, rtol=1e-12)
    np.testing.assert_allclose(second.numpy()[:2], [-(np.pi**2) / 3] * 2, rtol=1e-12)


@pytest.mark.parametrize("name", [n for n in gg.special.__all__ if "polynomial" in n])
def test_polynomials(name, device, torch):
    x = np.array([-1.2, -1.0, -0.3, 0.0, 0.5, 1.0, 1.4], np.float32)
    n = np.array([-1, 0, 1, 2, 3, 5, 8])
    ours, theirs = getattr(gg.special, name), getattr(torch.special, name)
    for degree in (-2, 0, 1, 4, 7):
        parity.same(
            ours(gg.tensor(x, device=device), degree), theirs(torch.from_numpy(x), degree), rtol=2e-4, atol=1e-4
        )
    parity.same(
        ours(gg.tensor(x, device=device), gg.tensor(n, device=device)),
        theirs(torch.from_numpy(x), torch.from_numpy(n)),
        rtol=2e-4,
        atol=1e-4,
    )
    parity.same(ours(0.25, gg.tensor(n, device=device)), theirs(0.25, torch.from_numpy(n)), rtol=2e-4, atol=1e-4)
    with pytest.raises(TypeError):
        ours(0.5, 2)


def test_polynomials_have_gradients():
    x = gg.tensor([0.3, -0.8], dtype=gg.float64, requires_grad=True)
    gg.special.legendre_polynomial_p(x, 3).sum().backward()
    at = x.detach().numpy()
    np.testing.assert_allclose(x.grad.numpy(), (15 * at**2 - 3) / 2, rtol=1e-14)


def test_real_tensors_are_their_own_conjugates():
    x = gg.tensor([1.0, -2.0])
    for same in (x.real, x.conj(), gg.resolve_conj(x), gg.positive(x), gg.conj_physical(x)):
        assert same is x


def test_nextafter_refuses_half_types():
    x = gg.tensor([1.0], dtype=gg.bfloat16)
    with pytest.raises(NotImplementedError, match="bfloat16"):
        gg.nextafter(x, x)
    with pytest.raises(NotImplementedError):
        x.nextafter_(x)


def test_nextafter_steps_by_one_unit(device):
    x = np.array([1.0, 0.0, -1.0, 3.4028235e38], np.float32)
    towards = np.array([2.0, -1.0, 0.0, INF], np.float32)
    got = gg.nextafter(gg.tensor(x, device=device), gg.tensor(towards, device=device))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(got.cpu().numpy(), np.nextafter(x, towards))


def test_large_arguments_of_the_incomplete_gamma_function(device):
    """Temme's expansion, the series and the continued fraction join without a jump, and P + Q = 1."""
    a = np.repeat([0.5, 20.0, 499.0, 501.0, 20000.0], 40)
    x = a * np.tile(np.linspace(0.4, 1.8, 40), 5)
    ta, tx = (gg.tensor(v.astype(np.float32), device=device) for v in (a, x))
    p, q = gg.igamma(ta, tx).cpu().numpy(), gg.igammac(ta, tx).cpu().numpy()
    np.testing.assert_allclose(p + q, 1.0, atol=2e-5)
    assert np.all(np.diff(p.reshape(5, 40), axis=1) >= -2e-6)


def test_coefficients_are_what_the_tool_computes(capsys):
    """kernels/coefficients.h is as tools/special_coefficients.py writes it."""
    pytest.importorskip("mpmath")
    root = pathlib.Path(__file__).parent.parent
    spec = importlib.util.spec_from_file_location("special_coefficients", root / "tools" / "special_coefficients.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    tool.main()
    assert capsys.readouterr().out == (root / "kernels" / "coefficients.h").read_text()
