"""Random numbers: the same bits on every device, a fixed stream, and the right distributions."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

import gpugrad as gg
from gpugrad.backends import philox

SIZES = [0, 1, 5, 1000, 100_003]


def has(device, dtype):
    return gg.ones(1, device=device)._backend.supports(gg.dtypes.as_dtype(dtype).numpy)


def bits(t):
    return t.cpu().to_numpy().tobytes()


# -- the stream itself -------------------------------------------------------------------------------


def philox4x64(counter, key, rounds=10):
    """Philox4x64 as in the paper's section 3.3 and table 2, on Python integers."""
    mask = 2**64 - 1
    x = list(counter)
    k = list(key)
    for _ in range(rounds):
        high0, low0 = divmod(0xD2E7470EE14C6C93 * x[0], 2**64)
        high1, low1 = divmod(0xCA5A826395121157 * x[2], 2**64)
        x = [high1 ^ x[1] ^ k[0], low1, high0 ^ x[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B97F4A7C15) & mask, (k[1] + 0xBB67AE8584CAA73B) & mask]
    return x


def plain_words(count, seed, stream):
    found = []
    for block in range(-(-count // 4)):
        found += philox4x64((block + 1, 0, stream, 0), (seed, 0))
    return found[:count]


def test_reference_philox_known_answer():
    """The known-answer test published with the paper's code: zeros, and all ones."""
    assert philox4x64((0, 0, 0, 0), (0, 0)) == [
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    ]
    ones = 2**64 - 1
    assert philox4x64((ones,) * 4, (ones,) * 2) == [
        0x87B092C3013FE90B,
        0x438C3C67BE8D0224,
        0x9CC7D7C69CD777B6,
        0xA09CAEBF594F0BA0,
    ]


@pytest.mark.parametrize(("seed", "stream"), [(0, 0), (1, 0), (0, 1), (2**64 - 1, 7), (67280421310721, 2**40)])
def test_words_are_philox(seed, stream):
    assert philox.words(23, seed, stream).tolist() == plain_words(23, seed, stream)
    assert philox.words(8, seed, stream, 16).tolist() == plain_words(24, seed, stream)[16:]


def test_bits_on_device_are_philox(device):
    backend = gg.ones(1, device=device)._backend
    got = backend.to_host(backend.random("bits", (101,), np.dtype(np.int64), 99, 3))
    assert got.view(np.uint64).tolist() == plain_words(101, 99, 3)


def test_uniform_is_made_of_those_bits(device):
    gg.manual_seed(5)
    words = plain_words(50, 5, 0)
    halves = [h for w in words for h in (w & 0xFFFFFFFF, w >> 32)]
    assert gg.rand(100, device=device).tolist() == [(h >> 8) * 2.0**-24 for h in halves]
    gg.manual_seed(5)
    assert gg.rand(100, device=device, dtype=gg.float16).tolist() == [(h >> 21) * 2.0**-11 for h in halves]
    gg.manual_seed(5)
    assert gg.rand(100, device=device, dtype=gg.bfloat16).tolist() == [(h >> 24) * 2.0**-8 for h in halves]
    if has(device, "float64"):
        gg.manual_seed(5)
        assert gg.rand(50, device=device, dtype=gg.float64).tolist() == [(w >> 11) * 2.0**-53 for w in words]


def test_normal_is_box_and_muller(device):
    gg.manual_seed(5)
    halves = [h for w in plain_words(500, 5, 0) for h in (w & 0xFFFFFFFF, w >> 32)]
    want = []
    for a, b in zip(halves[0::2], halves[1::2], strict=True):
        radius, angle = math.sqrt(-2 * math.log(a * 2.0**-32 + 2.0**-33)), 2 * math.pi * (b >> 8) * 2.0**-24
        want += [radius * math.cos(angle), radius * math.sin(angle)]
    np.testing.assert_allclose(gg.randn(1000, device=device).cpu().numpy(), want, rtol=0, atol=3e-6)


RECORDED = {
    "rand(4)": [0.3725370168685913, 0.33472365140914917, 0.136726975440979, 0.5897301435470581],
    "rand(2, dtype=gg.float64)": [0.3347236812982095, 0.5897301719842308],
    "randn(4)": [-0.7132490277290344, 1.210831642150879, -1.686141014099121, -1.0660516023635864],
    "randn(2, dtype=gg.float64)": [-1.2505195612271351, -0.7906330791940125],
    "randint(1000, (5,))": [592, 602, 502, 91, 71],
    "randint(-5, 5, (5,))": [-3, -3, -3, -4, -4],
    "randperm(8)": [1, 4, 2, 5, 6, 7, 3, 0],
    "bernoulli(gg.full((8,), 0.5))": [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0],
    "multinomial(gg.tensor([0.1, 0.2, 0.3, 0.4]), 6, replacement=True)": [2, 2, 1, 2, 3, 3],
    "multinomial(gg.tensor([0.1, 0.2, 0.3, 0.4]), 3)": [3, 1, 2],
    "normal(2.0, 3.0, (3,))": [-0.13974714279174805, 5.632494926452637, -3.0584230422973633],
}


@pytest.mark.parametrize("expression", RECORDED)
def test_recorded_values(expression):
    """What seed 1234 has always given. A change here changes every result anybody has published."""
    gg.manual_seed(1234)
    assert eval(f"gg.{expression}", {"gg": gg}).tolist() == RECORDED[expression]


def test_recorded_digests():
    found = {}
    for kind in ("rand", "randn"):
        for dtype in ("float16", "bfloat16", "float32", "float64"):
            gg.manual_seed(1234)
            found[f"{kind} {dtype}"] = hashlib.sha256(
                bits(getattr(gg, kind)(100_003, dtype=gg.dtypes.as_dtype(dtype)))
            ).hexdigest()[:16]
    assert found == DIGESTS


# sha256 of 100,003 numbers, little-endian
DIGESTS = {
    "rand float16": "92ea076cee388ccd",
    "rand bfloat16": "be13391fcc183f67",
    "rand float32": "52ef80983ec90fd0",
    "rand float64": "15a2f2f58f0a34d7",
    "randn float16": "b23f0fda91041cc7",
    "randn bfloat16": "3e356f568b5b8051",
    "randn float32": "aa0eaaa1046ab90c",
    "randn float64": "a915bf38e20b260c",
}


# -- the same on every device ------------------------------------------------------------------------


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["rand", "randn"])
def test_same_bits(kind, dtype, n, device):
    if not has(device, dtype):
        pytest.skip(f"no {dtype} there")
    d = gg.dtypes.as_dtype(dtype)
    found = []
    for place in ("cpu", device):
        gg.manual_seed(n + 1)
        found.append(bits(getattr(gg, kind)(n, dtype=d, device=place)))
    assert found[0] == found[1]


@pytest.mark.parametrize("n", SIZES)
def test_same_integers_and_draws(n, device):
    found = []
    for place in ("cpu", device):
        gg.manual_seed(n)
        p = gg.rand(n, device=place)
        found.append([
            bits(t)
            for t in (
                gg.randint(10, (n,), device=place), gg.randint(-(2**40), 2**40, (n,), device=place),
                gg.randint(0, 256, (n,), dtype=gg.uint8, device=place), gg.randperm(n, device=place), gg.bernoulli(p),
                gg.bernoulli(p.half()), gg.zeros(n, device=place).bernoulli_(0.3),
                gg.zeros(n, device=place).uniform_(-2, 3), gg.zeros(n, device=place).normal_(),
                gg.zeros(n, dtype=gg.int64, device=place).random_(), gg.zeros(n, device=place).random_(5, 9),
            )
        ])  # fmt: skip
    assert found[0] == found[1]


@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize(("shape", "count"), [((4,), 3), ((3, 7), 5), ((1000,), 500), ((2, 50), 50)])
def test_same_multinomial(shape, count, replacement, device):
    weights = np.random.default_rng(1).random(shape).astype(np.float32)
    found = []
    for place in ("cpu", device):
        gg.manual_seed(3)
        found.append(gg.multinomial(gg.tensor(weights, device=place), count, replacement).tolist())
    assert found[0] == found[1]


# -- state --------------------------------------------------------------------------------------------


def test_state_is_saved_and_restored(device):
    gg.manual_seed(8)
    gg.rand(3, device=device)
    state = gg.get_rng_state()
    first = [gg.randn(5, device=device).tolist(), gg.randperm(5, device=device).tolist()]
    gg.set_rng_state(state)
    assert [gg.randn(5, device=device).tolist(), gg.randperm(5, device=device).tolist()] == first
    assert gg.initial_seed() == 8
    assert gg.manual_seed(8).initial_seed() == 8
    assert gg.seed() != gg.seed()


def test_own_generators():
    a, b = gg.Generator().manual_seed(1), gg.Generator(device="cpu").manual_seed(1)
    gg.manual_seed(1)
    before = gg.get_rng_state()
    x = [
        gg.rand(3, generator=a),
        gg.randn(3, generator=a),
        gg.randint(9, (3,), generator=a),
        gg.randperm(4, generator=a),
        gg.bernoulli(gg.full((4,), 0.5), generator=a),
        gg.multinomial(gg.ones(4), 2, generator=a),
        gg.zeros(3).normal_(generator=a),
    ]
    y = [
        gg.rand(3, generator=b),
        gg.randn(3, generator=b),
        gg.randint(9, (3,), generator=b),
        gg.randperm(4, generator=b),
        gg.bernoulli(gg.full((4,), 0.5), generator=b),
        gg.multinomial(gg.ones(4), 2, generator=b),
        gg.zeros(3).normal_(generator=b),
    ]
    assert [t.tolist() for t in x] == [t.tolist() for t in y]
    assert gg.get_rng_state() == before, "the default generator was not used"
    assert gg.rand(3).tolist() == x[0].tolist(), "same seed, same stream, same numbers"
    a.set_state(b.get_state())
    assert gg.rand(2, generator=a).tolist() == gg.rand(2, generator=b).tolist()
    assert gg.Generator().manual_seed(-1).initial_seed() == 2**64 - 1


def test_seeds_and_streams_differ(device):
    gg.manual_seed(1)
    a, b = gg.rand(1000, device=device), gg.rand(1000, device=device)
    gg.manual_seed(2)
    c = gg.rand(1000, device=device)
    for x, y in ((a, b), (a, c), (b, c)):
        assert not (x == y).float().mean().item() > 0.01
        assert abs(np.corrcoef(x.cpu().numpy(), y.cpu().numpy())[0, 1]) < 0.12


@pytest.mark.parametrize("kind", ["rand", "randn"])
def test_shape_does_not_matter(kind, device):
    found = []
    for shape in ((24,), (6, 4), (2, 3, 4), (24, 1)):
        gg.manual_seed(4)
        found.append(getattr(gg, kind)(shape, device=device).flatten().tolist())
    assert all(f == found[0] for f in found)
    gg.manual_seed(4)
    assert getattr(gg, kind)(1000, device=device)[:24].tolist() == found[0], "a prefix of a longer draw"


def test_like_forms():
    x = gg.zeros(2, 3, dtype=gg.float16)
    assert gg.rand_like(x).dtype is gg.float16 and gg.randn_like(x, dtype=gg.float32).dtype is gg.float32
    assert gg.randint_like(gg.zeros(4, dtype=gg.int32), 3, 5).dtype is gg.int32
    assert gg.rand(2, requires_grad=True).requires_grad
    assert gg.randint(3, (2, 2)).dtype is gg.int64 and gg.randint(1, 2, (3,)).tolist() == [1, 1, 1]
    assert gg.randperm(0).tolist() == [] and gg.randperm(5, dtype=gg.int32).dtype is gg.int32


# -- distributions -----------------------------------------------------------------------------------

N = 200_000


def chi_square(counts, expected):
    """The statistic and a bound that chance passes once in some ten million times."""
    degrees = len(counts) - 1
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return statistic, degrees + 5.2 * math.sqrt(2 * degrees) + 18


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_uniform_distribution(dtype):
    x = gg.rand(N, dtype=gg.dtypes.as_dtype(dtype)).numpy().astype(np.float64)
    assert 0 <= x.min() and x.max() < 1
    assert abs(x.mean() - 0.5) < 5 * math.sqrt(1 / 12 / N) and abs(x.var() - 1 / 12) < 0.001
    counts = np.histogram(x, 100, (0, 1))[0]
    statistic, bound = chi_square(counts, N / 100)
    assert statistic < bound
    pairs = np.histogram2d(x[0::2], x[1::2], 20, ((0, 1), (0, 1)))[0].ravel()
    statistic, bound = chi_square(pairs, N / 2 / 400)
    assert statistic < bound


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normal_distribution(dtype):
    x = gg.randn(N, dtype=gg.dtypes.as_dtype(dtype)).numpy().astype(np.float64)
    assert np.isfinite(x).all()
    assert abs(x.mean()) < 5 / math.sqrt(N) and abs(x.var() - 1) < 5 * math.sqrt(2 / N)
    assert abs((x**3).mean()) < 5 * math.sqrt(15 / N) and abs((x**4).mean() - 3) < 5 * math.sqrt(96 / N)
    edges = np.linspace(-3, 3, 61)
    below = np.array([0.5 * math.erfc(-e / math.sqrt(2)) for e in edges])
    share = np.diff(np.concatenate([[0], below, [1]]))
    counts = np.histogram(x, np.concatenate([[-np.inf], edges, [np.inf]]))[0]
    statistic, bound = chi_square(counts, share * N)
    assert statistic < bound
    assert abs(np.corrcoef(x[0::2], x[1::2])[0, 1]) < 5 / math.sqrt(N / 2)


def test_half_types_are_unbiased():
    for dtype, steps in ((gg.float16, 2048), (gg.bfloat16, 256)):
        x = gg.rand(N, dtype=dtype).float().numpy()
        assert x.max() < 1 and set(np.unique(x * steps)) <= set(range(steps))
        assert abs(x.mean() - (0.5 - 0.5 / steps)) < 5 * math.sqrt(1 / 12 / N)
        z = gg.randn(N, dtype=dtype).float().numpy()
        assert abs(z.mean()) < 0.015 and abs(z.var() - 1) < 0.02


def test_integer_distribution():
    counts = np.bincount(gg.randint(0, 37, (N,)).numpy(), minlength=37)
    assert len(counts) == 37
    statistic, bound = chi_square(counts, N / 37)
    assert statistic < bound


def test_bernoulli_distribution():
    for p in (0.0, 0.1, 0.5, 1.0):
        mean = gg.bernoulli(gg.full((N,), p)).mean().item()
        assert abs(mean - p) <= 5 * math.sqrt(p * (1 - p) / N)
    assert gg.bernoulli(gg.zeros(4, dtype=gg.int64), 1.0).tolist() == [1, 1, 1, 1]


def test_permutations_are_uniform():
    counts = {}
    for _ in range(2400):
        key = tuple(gg.randperm(4).tolist())
        assert sorted(key) == [0, 1, 2, 3]
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 24
    statistic, bound = chi_square(np.array(list(counts.values())), 100)
    assert statistic < bound
    big = gg.randperm(100_003).numpy()
    assert np.array_equal(np.sort(big), np.arange(100_003)) and abs(np.corrcoef(big, np.arange(100_003))[0, 1]) < 0.02


def test_multinomial_distribution():
    weights = gg.tensor([1.0, 0.0, 3.0, 6.0])
    drawn = gg.multinomial(weights, 50_000, replacement=True).numpy()
    counts = np.bincount(drawn, minlength=4)
    assert counts[1] == 0
    statistic, bound = chi_square(counts[[0, 2, 3]], np.array([5000, 15000, 30000]))
    assert statistic < bound
    first = gg.multinomial(weights.expand(20_000, 4), 3).numpy()
    assert (np.sort(first, 1) == [0, 2, 3]).all(), "without replacement: each once, never the impossible one"
    statistic, bound = chi_square(np.bincount(first[:, 0], minlength=4)[[0, 2, 3]], np.array([2000, 6000, 12000]))
    assert statistic < bound


def test_filling_in_place():
    x = gg.zeros(N)
    assert x.uniform_(-2, 4) is x and -2 <= x.min().item() and x.max().item() < 4 and abs(x.mean().item() - 1) < 0.02
    assert abs(x.normal_(3, 2).mean().item() - 3) < 0.03 and abs(x.std().item() - 2) < 0.02
    assert abs(x.exponential_(2.0).mean().item() - 0.5) < 0.01 and x.min().item() >= 0
    assert set(np.unique(x.bernoulli_(0.5).numpy())) == {0, 1} and set(np.unique(x.random_(2, 5).numpy())) == {2, 3, 4}
    values = gg.normal(gg.tensor([0.0, 100.0]), gg.tensor([1.0, 0.0]))
    assert values[1].item() == 100 and values.shape == (2,)
    assert gg.normal(gg.zeros(3), 2.0).shape == (3,) and gg.normal(1.0, gg.ones(2, 2)).shape == (2, 2)


@pytest.mark.parametrize(("call", "text"), [
    (lambda: gg.rand(3, dtype=gg.int64), "rand: expected a floating-point dtype, got int64"),
    (lambda: gg.randint(5, 5, (2,)), "randint: expected low < high, got 5 and 5"),
    (lambda: gg.rand(-1), "rand: sizes must not be negative"),
    (lambda: gg.bernoulli(gg.zeros(2), 1.5), "bernoulli: p=1.5 is not a probability"),
    (lambda: gg.multinomial(gg.zeros(3), 1), "multinomial: weights must be finite, not negative, and not all zero"),
    (lambda: gg.multinomial(gg.tensor([1.0, -1.0]), 1), "multinomial: weights must be finite, not negative"),
    (lambda: gg.multinomial(gg.ones(2), 3), "cannot draw 3 samples without replacement from 2 weights"),
    (lambda: gg.multinomial(gg.ones(2, 2, 2), 1), "multinomial: expected 1-d or 2-d floating-point weights"),
    (lambda: gg.zeros(2).uniform_(3, 1), "uniform_: expected from <= to, got 3 and 1"),
    (lambda: gg.zeros(2).normal_(0, -1), "normal_: std must not be negative, got -1"),
    (lambda: gg.zeros(2, dtype=gg.int64).normal_(), "normal_: expected a floating-point dtype"),
])  # fmt: skip
def test_errors(call, text):
    with pytest.raises(RuntimeError, match=text):
        call()
