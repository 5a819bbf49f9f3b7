"""Order, statistics, scans, distances, counting: beside the table's tests the same expressions in PyTorch,
and values known without it."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gpugrad as gg
from tests import parity

RNG = np.random.default_rng(5)
ARRAYS = {
    "x": RNG.standard_normal((3, 4)).astype(np.float32),
    "y": RNG.standard_normal((3, 4)).astype(np.float32),
    "z": RNG.standard_normal((2, 3, 4)).astype(np.float32),
    "w": np.array([1.0, np.nan, 3.0, 3.0, 2.0], np.float32),
    "v": np.array([[1.0, np.nan, 4.0, 2.0], [2.0, 3.0, np.nan, np.nan]], np.float32),
    "i": np.array([3, 1, 2, 2]),
    "j": np.array([[2, 1, 2], [1, 2, 1], [2, 1, 2], [1, 1, 1]]),
    "b": np.array([True, False, True]),
    "h": RNG.standard_normal((3, 4)).astype(np.float16),
    "e": np.zeros((0, 3), np.float32),
    "o": np.array(2.5, np.float32),
    "s": np.array([1.0, 2.0, 2.0, 5.0], np.float32),
    "q": np.array([0.1, 0.5, 0.9], np.float32),
    "r": np.array([2.0, -0.5], np.float32),
    "t": np.array([[1.0, 1.0, 0.0], [2.0, 2.0, 2.0]], np.float32),
    "u": np.array([1, 5, 5, 9], np.uint8),
    "f": np.array([1, 2, 1, 3]),
    "a": np.array([0.5, 1.0, 0.25, 2.0], np.float32),
    "m": np.array([-np.inf, -np.inf, 1.0, 700.0, np.inf, 2.0], np.float32),
    "k": np.array([1, 2, 0]),
}

EXPRESSIONS = """
T.sort(x, stable=True, dim=0)
T.sort(x, dim=0, descending=True, stable=False)
T.sort(o)
T.sort(b)
x.sort(descending=True)
T.argsort(x, 0, True)
T.argsort(i, stable=True, descending=True)
T.msort(x)
T.topk(x, 2)
T.topk(x, 2, largest=False)
T.topk(x, 5)
T.topk(b, 1)
T.topk(o, 1)
x.topk(1, 0, sorted=True)
T.kthvalue(x, 2, keepdim=True)
T.kthvalue(x, 5)
T.kthvalue(e, 1, 0)
T.kthvalue(o, 1)
T.median(w)
T.median(w, 0)
T.median(v, 1, True)
T.nanmedian(w)
T.nanmedian(v, 1)
T.nanmedian(v, dim=0, keepdim=True)
T.median(e)
T.median(e, 0)
T.median(i)
T.nanmedian(i)
T.median(o, 0)
T.mode(i)
T.mode(j, 0)
T.mode(j, dim=1, keepdim=True)
T.mode(o)
T.mode(e, 0)
T.mode(e, 1)
T.mode(t)
T.quantile(x, 0.3)
T.quantile(x, 1)
T.quantile(x, 2.0)
T.quantile(x, q)
T.quantile(x, q, dim=1, keepdim=True)
T.quantile(z, q, 1)
T.quantile(x, r)
T.quantile(x, q.double())
T.quantile(x, q.reshape(3, 1))
T.quantile(i, 0.5)
T.quantile(h, 0.5)
T.quantile(x, [0.3])
T.quantile(x, 0.5, interpolation='other')
T.quantile(e, 0.5)
T.quantile(e, 0.5, dim=1)
T.quantile(o, 0.5, keepdim=True)
T.quantile(o, q, 0, True)
T.quantile(w, 0.5)
T.quantile(v, q, 1, interpolation='nearest')
T.nanquantile(w, 0.5)
T.nanquantile(v, q, dim=1)
T.nanquantile(v, 0.3, 0, True, interpolation='lower')
T.quantile(m, 0.3)
T.searchsorted(s, x)
T.searchsorted(s, x, right=True)
T.searchsorted(s, 2.0, side='right')
T.searchsorted(s, o)
T.searchsorted(i.sort()[0], x)
T.searchsorted(T.sort(x)[0], y)
T.searchsorted(T.sort(x)[0], y, right=True, out_int32=True)
T.searchsorted(T.sort(x)[0], o)
T.searchsorted(T.sort(x)[0], y[:2])
T.searchsorted(o, x)
T.searchsorted(s, w)
T.searchsorted(s, x, right=True, side='left')
T.searchsorted(s, x, side='middle')
T.searchsorted(x, y, sorter=T.argsort(x))
T.searchsorted(s, x, sorter=i)
T.searchsorted(s, x, sorter=k)
T.searchsorted(s, x, sorter=s)
T.searchsorted(e[:, 0], x)
T.bucketize(x, s)
T.bucketize(x, s, right=True, out_int32=True)
T.bucketize(2.0, s)
T.bucketize(i, s)
T.bucketize(x, x)
T.cummax(x, 1)
T.cummin(z, -2)
T.cummax(w, 0)
T.cummin(w, 0)
T.cummax(i, 0)
T.cummin(u, 0)
T.cummax(b, 0)
T.cummax(o, 0)
T.cummax(e, 0)
T.cummax(x, 2)
T.logcumsumexp(x, 1)
T.logcumsumexp(m, 0)
T.logcumsumexp(h, 0)
T.logcumsumexp(i, 0)
T.cumsum(i, 0, dtype=T.float32)
T.cumsum(x, dim=1, dtype=T.int32)
T.cumsum(b, 0)
T.cumsum(o, 0)
T.cumprod(i, 0)
T.cumprod(h, 1, dtype=T.float32)
T.diff(x)
T.diff(x, 2, 0)
T.diff(i, n=0)
T.diff(i, n=-1)
T.diff(i, n=9)
T.diff(b)
T.diff(o)
T.diff(i, prepend=f, append=i)
T.diff(x, prepend=s)
T.trapezoid(x)
T.trapezoid(i)
T.trapezoid(i, f)
T.trapezoid(x, s)
T.trapezoid(x, y, dim=0)
T.trapezoid(x, s, dim=0)
T.trapezoid(z, x)
T.trapezoid(x, dx=2)
T.trapz(x, dx=0.5, dim=0)
T.trapezoid(o)
T.trapezoid(e, dim=0)
T.trapezoid(b)
T.cumulative_trapezoid(x)
T.cumulative_trapezoid(i, dx=3)
T.cumulative_trapezoid(x, s)
T.cumulative_trapezoid(e, dim=0)
T.gradient(x)
T.gradient(x, dim=0)
T.gradient(x, spacing=2.0, edge_order=2)
T.gradient(x, spacing=[2.0, 3.0])
T.gradient(x, spacing=[2.0, 3.0], dim=0)
T.gradient(x, spacing=(T.cumsum(s, 0),), dim=1)
T.gradient(x, spacing=(T.cumsum(s, 0),), dim=1, edge_order=2)
T.gradient(i)
T.gradient(x[:2], edge_order=2)
T.gradient(x, edge_order=3)
T.gradient(x, dim=(0, 1), spacing=0.5)
T.nansum(w)
T.nansum(i)
T.nansum(b)
T.nansum(v, 1, True)
T.nansum(w, dtype=T.float16)
T.nanmean(w)
T.nanmean(v, 0)
T.nanmean(i)
T.nanmean(v, dim=(0, 1), keepdim=True)
T.mean(h)
T.mean(h * 60000)
T.mean(i, dtype=T.float32)
T.mean(i)
T.mean(x, dim=())
T.var(x)
T.var(h, 1)
T.std(h)
T.var(x, True)
T.var(x, False)
T.var(x, 0, False, True)
T.var(x, dim=(0, 1), correction=2)
T.var(x, correction=1.5, dim=0, keepdim=True)
T.std(x, (0, 1), True)
T.std(x, unbiased=False)
T.var_mean(x, 0)
T.var_mean(z, (0, 2), keepdim=True)
T.std_mean(x, unbiased=False)
T.std_mean(h, dim=1, correction=0)
T.var(i)
x.var(1, unbiased=False)
x.std(dim=0, keepdim=True)
T.cov(x)
T.cov(i)
T.cov(s)
T.cov(x, correction=0)
T.cov(x, fweights=f)
T.cov(x, aweights=a)
T.cov(x, correction=0, fweights=f, aweights=a)
T.cov(x, fweights=a)
T.cov(x, aweights=f)
T.cov(x, fweights=-f)
T.cov(z)
T.cov(b)
T.corrcoef(x)
T.corrcoef(s)
T.corrcoef(o)
T.corrcoef(f)
T.norm(x)
T.norm(x, 3, 1)
T.norm(x, 0)
T.norm(x, -1)
T.norm(x, inf, dim=(0, 1))
T.norm(x, 'fro', dim=(0, 1), keepdim=True)
T.norm(h, 3)
T.norm(h)
T.norm(h, dtype=T.float32)
T.norm(i)
T.norm(x, 'other')
T.norm(e)
T.norm(e, inf)
T.norm(o, 3)
x.norm()
x.norm(1, 0, True)
T.renorm(x, 2, 0, 1.0)
T.renorm(z, 1, -1, 2.0)
T.renorm(x, -1, 0, 2.0)
T.renorm(x, 2, 0, -2.0)
T.renorm(s, 2, 0, 2.0)
T.dist(x, y)
T.dist(x, s, 3)
T.dist(x, y, inf)
T.dist(x, y, 0)
T.cdist(x, y)
T.cdist(z, y, p=1)
T.cdist(z[:, None], z[None], p=inf)
T.cdist(x, y, p=0)
T.cdist(x, y, p=0.5)
T.cdist(x, y, p=-1)
T.cdist(x, t)
T.cdist(x, s)
T.cdist(i.reshape(2, 2), i.reshape(2, 2))
T.cdist(x, y, compute_mode='use_mm_for_euclid_dist')
T.cdist(x, y, compute_mode='other')
T.cdist(e, e)
T.cdist(x[:, :0], y[:, :0])
T.cdist(x.repeat(20, 1), y.repeat(20, 1))
T.pdist(x)
T.pdist(x, 1)
T.pdist(x, inf)
T.pdist(x[:1])
T.pdist(s)
T.pdist(x, -1)
T.cosine_similarity(x, y)
T.cosine_similarity(x, y, dim=0)
T.cosine_similarity(x, x * 0)
T.cosine_similarity(x, t)
T.cosine_similarity(f, i)
T.pairwise_distance(x, y)
T.pairwise_distance(x, s, 1, keepdim=True)
T.unique(i)
T.unique(j, return_inverse=True, return_counts=True)
T.unique(j, dim=0, return_inverse=True, return_counts=True)
T.unique(j, dim=1, return_inverse=True)
T.unique(x, dim=2)
T.unique(w)
T.unique(e)
T.unique(e, dim=0, return_inverse=True, return_counts=True)
T.unique(e, dim=1)
T.unique(o, return_inverse=True)
T.unique(o, dim=0)
T.unique(b, return_counts=True)
T.unique(u, False, True)
i.unique(return_counts=True)
T.unique_consecutive(i, return_inverse=True, return_counts=True)
T.unique_consecutive(j, return_inverse=True)
T.unique_consecutive(j, dim=1, return_counts=True)
T.unique_consecutive(j, True, True, 0)
T.unique_consecutive(e, return_counts=True)
T.unique_consecutive(e, dim=0, return_counts=True)
T.unique_consecutive(e, dim=1)
T.unique_consecutive(o, return_inverse=True)
T.unique_consecutive(w)
T.isin(j, i[:1])
T.isin(j, i, invert=True, assume_unique=False)
T.isin(x, 1.0)
T.isin(2, i)
T.isin(1, 2)
T.isin(i, s)
T.isin(w, w)
T.isin(b, b)
T.isin(i, i[:0])
T.bincount(i)
T.bincount(i, minlength=7)
T.bincount(i, a)
T.bincount(i, a[:2])
T.bincount(-i)
T.bincount(j)
T.bincount(s)
T.bincount(b)
T.bincount(i[:0], minlength=2)
T.bincount(i, minlength=-1)
T.bincount(u)
i.bincount(a, 6)
T.histc(x, 5)
T.histc(x, 4, -1, 1)
T.histc(x, bins=4, min=-1, max=1)
T.histc(w, 4)
T.histc(w, 4, 1, 3)
T.histc(s, 3, 5, 1)
T.histc(s, 0)
T.histc(e, 3)
T.histc(s * 0 + 1, 3)
T.histc(i, 4)
T.histogram(x, 3)
T.histogram(x, 3, range=(0.0, 2.0), density=True)
T.histogram(x, s[[0, 1, 3]], weight=y)
T.histogram(s, s[[0, 1, 3]])
T.histogram(o, 4)
T.histogram(x, 4, range=(1.0, 1.0))
T.histogram(i, 3)
T.histc(o, 4)
T.bincount(i[:0], a[:0], 3)
T.gradient(u)
T.gradient(b)
T.norm(i, dtype=T.float32)
T.searchsorted(b, b)
T.any(u)
T.all(u, 0)
T.trapezoid(u[:0])
T.histogram(w, 2)
T.histogram(e, 2)
T.histogram(x, 2, range=(3.0, 1.0))
T.histogram(x, 0)
T.histogram(x, 2, weight=s)
T.histogramdd(x[:, :2], [2, 3])
T.histogramdd(x[:, :2], 3, range=(-1.0, 1.0, -2.0, 2.0), density=True)
T.histogramdd(x[:, :2], [s[[0, 1, 3]], s[[0, 3]]])
T.histogramdd(x[:, :2], [1, 2], weight=s)
T.segment_reduce(a[:3], 'sum', lengths=k)
T.segment_reduce(x, 'mean', lengths=k)
T.segment_reduce(x, 'max', lengths=k)
T.segment_reduce(x, 'min', lengths=k, initial=-0.5)
T.segment_reduce(x, 'prod', offsets=T.tensor([0, 2, 2, 3]))
T.segment_reduce(x, 'mean', lengths=k, initial=10.0)
T.segment_reduce(x, 'sum', lengths=i)
T.segment_reduce(x, 'other', lengths=k)
T.segment_reduce(x, 'sum')
T.segment_reduce(k, 'sum', lengths=k)
T.norm_except_dim(z)
T.norm_except_dim(z, 1, 1)
T.norm_except_dim(z, 2, -1)
T.max(x)
T.max(x, 0)
T.max(x, dim=1, keepdim=True)
T.max(x, y)
T.max(x, other=y)
T.min(b, 0)
T.max(b)
T.max(o, 0)
T.max(e)
T.max(e, 0)
T.min(e, 1)
T.max(w)
T.max(x, keepdim=True)
T.amax(e, 0)
T.amax(x, (0, 1), True)
T.aminmax(x)
T.aminmax(x, dim=0, keepdim=True)
T.aminmax(x, keepdim=True)
T.aminmax(e)
T.aminmax(e, dim=0)
T.aminmax(i)
T.argmax(x, None, True)
T.argmin(x, keepdim=True)
T.argmax(e)
T.argmax(e, 0)
T.argmax(b)
T.argmin(w)
T.argmax(o)
T.any(x, dim=())
T.all(b, ())
T.any(z > 1, (0, 2))
T.all(z > -9, (0, 1), True)
T.all(i)
T.count_nonzero(i, 0)
T.count_nonzero(z > 0, (0, 1))
T.count_nonzero(x, dim=())
T.prod(b)
T.prod(x, 1, True)
T.sum(x, dim=())
T.sum(h, dtype=T.float32)
T.logsumexp(x, 0)
T.logsumexp(i, 0)
T.logsumexp(m, 0)
T.logsumexp(h, (0, 1), True)
T.isclose(i, s)
T.allclose(i, s)
T.allclose(w, w)
T.allclose(w, w, equal_nan=True)
T.isclose(m, m)
T.isclose(i, f, atol=1)
T.isclose(b, b)
T.isclose(x, x, rtol=-1.0)
T.equal(i, i.float())
T.equal(x, y)
T.equal(x, s)
""".strip().splitlines()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_parity(expression, device, torch):
    if device == "pretend" and "double" in expression:
        pytest.skip("no float64 there")
    parity.check(expression, ARRAYS, torch, device)


WIDE = {k: v.astype(np.float64) for k, v in ARRAYS.items() if v.dtype == np.float32}
GRADIENTS = """
T.cummax(t, 1)[0]
T.cummin(x, 0)[0]
T.logcumsumexp(x, 1)
T.logcumsumexp(x * 300, 0)
T.cumprod(t, 1)
T.cumprod(x, 0)
T.prod(t, 1)
T.median(t)
T.median(x)
T.nanmedian(x)
T.median(x, 1)[0]
T.mode(t)[0]
T.kthvalue(x, 2, 0)[0]
T.topk(x, 2)[0]
T.quantile(x, 0.3)
T.quantile(x, 0.7, 0)
T.nanquantile(x, 0.4, 1)
T.max(t)
T.amin(t, 1)
T.max(t, 1)[0]
T.norm(t, 2, 0)
T.norm(x * 0)
T.norm(x * 0, 3)
T.norm(t, 1.5)
T.norm(t, 0.5, 0)
T.norm(t, inf)
T.norm(t, 1)
T.cdist(x, x)
T.cdist(x, y, p=1)
T.cdist(x, x, p=3)
T.cdist(x.repeat(10, 1), y.repeat(10, 1))
T.pdist(x)
T.dist(x, x)
T.renorm(x, 2, 0, 1.0)
T.cov(x)
T.corrcoef(x)
T.cosine_similarity(x, y)
T.pairwise_distance(x, x)
T.trapezoid(x, s)
T.cumulative_trapezoid(x, s)
T.gradient(x, spacing=0.5)[1]
T.diff(x, 2)
T.nansum(x, 0)
T.nanmean(x)
T.std(x, 1)
T.var(x, correction=0)
T.logsumexp(x, (0, 1))
""".strip().splitlines()


@pytest.mark.parametrize("expression", GRADIENTS)
def test_gradient_parity(expression, torch):
    used = {k: v for k, v in WIDE.items() if f"{k}" in expression.replace("T.", "").split("(", 1)[1]}
    names = {k: v for k, v in used.items() if k in ("x", "y", "t", "s")}
    parity.gradients(expression, names, torch)


# -- without PyTorch --------------------------------------------------------------------------


def test_search_by_halving_agrees_with_numpy(device):
    for n in (1, 2, 3, 7, 64, 1000):
        edges = np.sort(RNG.integers(0, 50, n)).astype(np.float32)
        values = RNG.integers(-2, 53, (5, 7)).astype(np.float32)
        for side in ("left", "right"):
            got = gg.searchsorted(gg.tensor(edges, device=device), gg.tensor(values, device=device), side=side)
            np.testing.assert_array_equal(got.cpu().numpy(), np.searchsorted(edges, values, side))


def test_running_extremes_of_long_lines(device):
    x = RNG.integers(0, 400, (2, 5000)).astype(np.float32)
    values, indices = gg.cummax(gg.tensor(x, device=device), 1)
    np.testing.assert_array_equal(values.cpu().numpy(), np.maximum.accumulate(x, 1))
    np.testing.assert_array_equal(np.take_along_axis(x, indices.cpu().numpy(), 1), values.cpu().numpy())
    y = gg.logcumsumexp(gg.tensor(x, device=device), 1).cpu().numpy()
    np.testing.assert_allclose(y, np.logaddexp.accumulate(x.astype(np.float64), 1), rtol=1e-5)


@pytest.mark.parametrize("columns", [1, 2, 5])
def test_unique_rows_agree_with_numpy(columns, device):
    a = RNG.integers(0, 3, (40, columns))
    values, inverse, counts = gg.unique(gg.tensor(a, device=device), dim=0, return_inverse=True, return_counts=True)
    want, back, number = np.unique(a, axis=0, return_inverse=True, return_counts=True)
    np.testing.assert_array_equal(values.cpu().numpy(), want)
    np.testing.assert_array_equal(inverse.cpu().numpy(), back.reshape(-1))
    np.testing.assert_array_equal(counts.cpu().numpy(), number)


def test_logcumsumexp_after_nothing(device):
    """Before the first term above -inf the result is -inf, and the gradient 0."""
    x = gg.tensor([-math.inf, -math.inf, 1.0, 700.0, -math.inf], device=device, requires_grad=True)
    y = gg.logcumsumexp(x, 0)
    assert y.tolist() == [-math.inf, -math.inf, 1.0, 700.0, 700.0]
    (y[2:] * gg.tensor([3.0, 2.0, 1.0], device=device)).sum().backward()
    assert x.grad.tolist() == [0, 0, 3, 3, 0]


def test_results_are_named(device):
    x = gg.tensor([[1.0, 3.0], [2.0, 0.0]], device=device)
    assert gg.cummax(x, 1)._fields == gg.mode(x)._fields == gg.nanmedian(x, 0)._fields == ("values", "indices")
    assert gg.histogram(x, 2)._fields == ("hist", "bin_edges") == gg.histogramdd(x, 2)._fields
    assert gg.aminmax(x)._fields == ("min", "max")
    assert type(gg.cummin(x, 0)).__name__ == "cummin"


@pytest.mark.parametrize("mean", [0.3, 4.0, 12.0, 300.0, 2e5])
def test_poisson_moments(mean):
    drawn = gg.poisson(gg.full((40_000,), mean)).double()
    tolerance = 5 * math.sqrt(mean / 40_000)
    assert abs(drawn.mean().item() - mean) < tolerance
    assert abs(drawn.var().item() / mean - 1) < 0.05
    assert gg.equal(drawn, drawn.floor()) and drawn.min().item() >= 0


def test_poisson_frequencies():
    for mean in (2.5, 11.0):
        drawn = gg.poisson(gg.full((100_000,), mean)).long()
        counts = gg.bincount(drawn, minlength=30)[:30].numpy() / 1e5
        want = [math.exp(-mean + k * math.log(mean) - math.lgamma(k + 1)) for k in range(30)]
        np.testing.assert_allclose(counts, want, atol=0.006)


@pytest.mark.parametrize(("n", "p"), [(5, 0.3), (40, 0.1), (100, 0.4), (100, 0.9), (100_000, 0.25), (3, 0.99)])
def test_binomial_moments(n, p):
    drawn = gg.binomial(gg.full((40_000,), float(n)), gg.full((40_000,), p)).double()
    spread = n * p * (1 - p)
    assert abs(drawn.mean().item() - n * p) < 5 * math.sqrt(spread / 40_000)
    assert abs(drawn.var().item() / spread - 1) < 0.06
    assert drawn.min().item() >= 0 and drawn.max().item() <= n


def test_binomial_frequencies():
    drawn = gg.binomial(gg.full((100_000,), 30.0), gg.full((), 0.4)).long()
    counts = gg.bincount(drawn, minlength=31).numpy() / 1e5
    want = [math.comb(30, k) * 0.4**k * 0.6 ** (30 - k) for k in range(31)]
    np.testing.assert_allclose(counts, want, atol=0.006)


def test_edges_of_the_counting_distributions(device):
    def tensor(*values):
        return gg.tensor(values, device=device)

    assert gg.poisson(tensor(0.0, 0.0)).tolist() == [0, 0]
    assert gg.binomial(tensor(3.0, 4.0, -2.0, 5.0), tensor(1.0, 0.0, 0.5, 2.0)).tolist() == [3, 0, 0, 5]
    nan = gg.poisson(tensor(math.nan, math.inf)).tolist()
    assert math.isnan(nan[0]) and nan[1] == math.inf
    assert gg.poisson(tensor(4.0).half()).dtype is gg.float16
    with pytest.raises(ValueError, match="count must be floating-point"):
        gg.binomial(gg.tensor([3], device=device), tensor(0.5))
    with pytest.raises(RuntimeError, match="is negative"):
        gg.poisson(tensor(-1.0)).tolist()


def test_one_call_takes_one_stream():
    gg.manual_seed(3)
    gg.poisson(gg.full((1000,), 50.0))
    after = gg.rand(2)
    gg.manual_seed(3)
    gg.rand(1)
    assert gg.equal(after, gg.rand(2))


def test_fills():
    x = gg.empty(50_000)
    assert abs(x.log_normal_(0.5, 0.25).log().mean().item() - 0.5) < 0.01
    assert abs(x.cauchy_(3.0, 2.0).median().item() - 3) < 0.05
    assert abs(x.geometric_(0.25).mean().item() - 4) < 0.1 and x.min().item() == 1
    assert x.exponential_(2.0).min().item() > 0 and abs(x.mean().item() - 0.5) < 0.01
    assert set(np.unique(gg.empty(400, dtype=gg.int8).geometric_(0.9).numpy())) >= {1, 2}
    assert x.uniform_(2, 3).min().item() >= 2 and x.uniform_(**{"from": 4, "to": 5}).max().item() < 5
    assert set(np.unique(x.random_(3).numpy())) == {0, 1, 2} and x.random_(3, 5).min().item() == 3
    assert gg.empty(2000, dtype=gg.uint8).random_().max().item() == 255
    p = gg.tensor([0.0, 1.0]).expand(500, 2)
    assert gg.equal(gg.empty(500, 2).bernoulli_(p), p)


REFUSED = [
    (lambda: gg.bernoulli(gg.tensor([0.5, 2.0])), RuntimeError, "is not in"),
    (lambda: gg.bernoulli(gg.tensor([1, 0])), RuntimeError, "expected a floating-point tensor"),
    (lambda: gg.zeros(2).bernoulli_(1.5), RuntimeError, "not a probability"),
    (lambda: gg.normal(0.0, 1.0), TypeError, "normal"),
    (lambda: gg.normal(gg.zeros(2), 1.0, (2,)), TypeError, "normal"),
    (lambda: gg.normal(0.0, -1.0, (2,)), RuntimeError, "std must not be negative"),
    (lambda: gg.normal(gg.zeros(2), -gg.ones(2)), RuntimeError, "is not 0 or above"),
    (lambda: gg.normal(gg.zeros(2), gg.ones(3)), RuntimeError, "normal"),
    (lambda: gg.normal(gg.tensor([1]), 1.0), RuntimeError, "floating-point"),
    (lambda: gg.poisson(gg.tensor([1])), RuntimeError, "floating-point"),
    (lambda: gg.binomial(gg.ones(2), gg.ones(3)), RuntimeError, "binomial"),
    (lambda: gg.binomial(gg.ones(2), gg.ones(2).double()), RuntimeError, "one dtype"),
    (lambda: gg.zeros(3).geometric_(1.0), RuntimeError, "between 0 and 1"),
    (lambda: gg.zeros(3).cauchy_(0, -1), RuntimeError, "sigma"),
    (lambda: gg.zeros(3).log_normal_(0, 0), RuntimeError, "std"),
    (lambda: gg.zeros(3).exponential_(0), RuntimeError, "rate"),
    (lambda: gg.tensor([1]).cauchy_(), RuntimeError, "floating-point"),
    (lambda: gg.multinomial(gg.ones(3), 0), RuntimeError, "num_samples"),
    (lambda: gg.multinomial(gg.ones(3), 4), RuntimeError, "without replacement"),
    (lambda: gg.zeros(2).uniform_(1, 2, 3), TypeError, "from and to"),
    (lambda: gg.tensor([1]).random_(3, 3), RuntimeError, "low < high"),
]


@pytest.mark.parametrize(("call", "kind", "text"), REFUSED)
def test_refused(call, kind, text):
    with pytest.raises(kind, match=text):
        call()


def test_normal_from_tensors():
    mean = gg.tensor([0.0, 100.0], dtype=gg.float64)
    drawn = gg.normal(mean.expand(2000, 2), 2.0)
    assert drawn.dtype is gg.float64 and abs(drawn.mean(0)[1].item() - 100) < 0.3
    assert gg.normal(2.0, gg.zeros(3)).tolist() == [2, 2, 2]
    assert gg.normal(gg.zeros(2), gg.zeros(3, 1)).shape == (3, 2)
    assert gg.multinomial(gg.tensor([1.0, 0.0]), 2).tolist() == [0, 1]
