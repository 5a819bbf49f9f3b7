"""The same program gives the same bits: run twice, in another process, with another number of threads, compiled twice;
and random numbers that are equal on all devices are sound as well. docs/determinism.md states what is promised."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

import gpugrad as gg
import gpugrad.nn.functional as F
from gpugrad import nn
from gpugrad.backends import philox
from gpugrad.devices import Device, backend_of
from gpugrad.utils import data as D

ROOT = Path(__file__).resolve().parent.parent


# -- a program with one of everything that might depend on an order --------------------------------------------------


class Mixed(nn.Module):
    """Convolution, pooling, batch norm, dropout, an embedding with repeated indices, attention, layer norm."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(11, 16)
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.mix = nn.Linear(8 * 14 * 14 + 16, 64)
        self.layer = nn.LayerNorm(64)
        self.out = nn.Linear(64, 10)
        self.dropout = nn.Dropout(0.3)

    def forward(self, images, words):
        x = F.max_pool2d(F.gelu(self.norm(self.conv(images))), 2)
        e = self.table(words)
        e = F.scaled_dot_product_attention(e, e, e).mean(1)
        x = gg.cat([x.flatten(1), e], 1)
        return self.out(self.dropout(F.gelu(self.layer(self.mix(x)))))


def train(device, compiled=False, steps=3, batch=64):
    """sha256 over losses, gradients and weights of a short training."""
    gg.manual_seed(1234)
    model = Mixed().to(device)
    optimizer = gg.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01)
    rng = np.random.default_rng(5)
    images = gg.tensor(rng.standard_normal((batch, 1, 28, 28), np.float32), device=device)
    words = gg.tensor(rng.integers(0, 11, (batch, 7)), device=device)
    labels = gg.tensor(rng.integers(0, 10, batch), device=device)

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images, words), labels, label_smoothing=0.1)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    run = gg.compile(step) if compiled else step
    seen = hashlib.sha256()
    for _ in range(steps):
        seen.update(run().detach().cpu().numpy().tobytes())
    for p in model.parameters():
        seen.update(p.grad.cpu().numpy().tobytes())
        seen.update(p.detach().cpu().numpy().tobytes())
    return seen.hexdigest()


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_the_same_training_twice(device, compiled):
    assert train(device, compiled) == train(device, compiled)


def operations(device):
    """sha256 of results of single operations on arrays large enough to be shared out among threads."""
    gg.manual_seed(3)
    x = gg.randn(300, 5003, device=device)
    y = gg.randn(300, 5003, device=device)
    index = gg.randint(0, 300, (5003,), device=device)
    wide = x[:, :5000].reshape(30, 10, 50, 100)
    half = x.to(gg.bfloat16)
    found = [
        (x * y).tanh(), x.sum(), x.sum(0), x.sum(1), (x * y).mean((0, 1)), x.var(0), x.std(1), x.norm(), x.prod(1),
        x.softmax(1), x.log_softmax(0), x.logsumexp(1), x.cumsum(1), x.cumsum(0), x.sort(1)[0], x.sort(0)[1],
        x.argmax(1), half.sum(1), half.softmax(-1), x.t().contiguous(), F.layer_norm(x, (5003,)), F.gelu(x),
        gg.zeros(5003, 300, device=device).index_add(0, gg.arange(5003, device=device) % 7, x.t().contiguous()),
        gg.zeros(300, device=device).scatter_add(0, index, x[0]),
        gg.zeros(300, device=device).index_put((index,), y[1], accumulate=True),
        F.avg_pool2d(wide, 2), F.max_pool2d(wide, 3, 1), F.interpolate(wide, scale_factor=2, mode="bilinear"),
        F.batch_norm(wide, None, None, training=True), F.dropout(x, 0.5), gg.bincount(index), x.unique()[:100],
    ]  # fmt: skip
    seen = hashlib.sha256()
    for r in found:
        values = r.cpu()
        seen.update(values.to(gg.float32).numpy().tobytes())
    return seen.hexdigest()


def test_the_same_operations_twice(device):
    assert operations(device) == operations(device)


def products(device):
    """sha256 of products and convolutions, with their gradients."""
    gg.manual_seed(4)
    seen = hashlib.sha256()
    for shapes in (
        ((200, 300), (300, 150)),
        ((1, 3000), (3000, 300)),
        ((6, 70, 90), (6, 90, 40)),
        ((130, 784), (784, 10)),
    ):
        a, b = (gg.randn(*s, device=device).requires_grad_() for s in shapes)
        (a @ b).square().sum().backward()
        seen.update(b"".join(t.detach().cpu().numpy().tobytes() for t in (a @ b, a.grad, b.grad)))
    x = gg.randn(16, 8, 20, 20, device=device).requires_grad_()
    w = gg.randn(24, 8, 3, 3, device=device).requires_grad_()
    y = F.conv2d(x, w, padding=1)
    y.square().sum().backward()
    seen.update(b"".join(t.detach().cpu().numpy().tobytes() for t in (y, x.grad, w.grad)))
    return seen.hexdigest()


def test_the_same_products_twice(device):
    assert products(device) == products(device)


# -- threads ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def threads():
    """Sets how many threads the CPU backend has, and in another number BLAS."""
    before = gg.get_num_threads()
    controller = ThreadpoolController()
    most = os.cpu_count() or 1  # see tests/test_products.py

    def use(n):
        gg.set_num_threads(n)
        controller.limit(limits=min(4 - n, most), user_api="blas")
        return n

    with controller.limit(limits=None):
        yield use
        gg.set_num_threads(before)


@pytest.mark.parametrize(
    "what",
    [operations, products, lambda d: train(d, batch=96), lambda d: train(d, True, batch=96)],
    ids=["operations", "products", "training", "compiled training"],
)
def test_any_number_of_threads(what, threads):
    found = {threads(n): what("cpu") for n in (1, 2, 3)}
    assert len(set(found.values())) == 1, found


# -- processes --------------------------------------------------------------------------------------------------------

_AGAIN = """
import sys
keep = [bytearray(int(sys.argv[2]) * 1040 * (i + 1)) for i in range(9)]  # memory lies elsewhere
from tests import pretend, test_determinism as t
if sys.argv[1] == "pretend":
    pretend.register()
print(t.train(sys.argv[1]), t.train(sys.argv[1], True), t.operations(sys.argv[1]), t.products(sys.argv[1]))
"""


def test_the_same_in_another_process(device):
    here = None
    for k, seed in ((0, "0"), (7, "4711")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OPENBLAS_NUM_THREADS": "1"}
        run = subprocess.run([sys.executable, "-c", _AGAIN, device, str(k)], cwd=ROOT, capture_output=True, text=True,
                             timeout=300, env=environment)  # fmt: skip
        assert run.returncode == 0, run.stderr
        here = here or run.stdout
        assert run.stdout == here


# -- data -------------------------------------------------------------------------------------------------------------


class Noisy(D.Dataset):
    def __len__(self):
        return 37

    def __getitem__(self, i):
        return i, np.float32(np.sin(i))


def _batches(workers):
    gg.manual_seed(77)
    loader = D.DataLoader(Noisy(), 5, shuffle=True, num_workers=workers)
    return [(i.tolist(), x.tolist()) for _ in range(2) for i, x in loader]


def test_data_order_does_not_depend_on_workers():
    one = _batches(0)
    assert len(one) == 16 and one[:8] != one[8:]
    assert _batches(0) == one and _batches(1) == one and _batches(2) == one


# -- random numbers ---------------------------------------------------------------------------------------------------

DRAWS = 10_000_000


@pytest.mark.parametrize("kind", ["bits", "uniform", "normal"])
def test_ten_million_draws_are_the_same_bits(kind, device):
    """Each kind as it is drawn on this device against the definition in NumPy (backends/philox.py)."""
    if device == "cpu":
        pytest.skip("the definition itself")
    backend = backend_of(Device(device))
    dtype = np.dtype(np.int64 if kind == "bits" else np.float32)
    got = backend.to_host(backend.random(kind, (DRAWS,), dtype, 42, 7))
    assert got.tobytes() == philox.random(kind, DRAWS, dtype, 42, 7).tobytes()


@pytest.fixture(scope="module")
def words():
    return philox.words(DRAWS, 42, 7)


# Seeds are fixed, so these tests give one answer for ever; the bounds say how surprising it would have to be. Sums over
# ten million draws are normal to within far less than the bounds' own width, which is five standard deviations (chance:
# 6e-7 a test). Chi-square with k degrees of freedom has mean k and variance 2k and a tail to the right that is heavier
# than the normal one, for which the last term makes up (Laurent and Massart, Ann. Stat. 28, 2000, lemma 1).


def _chi_square_bound(k, chance=1e-7):
    x = -np.log(chance)
    return k + 2 * np.sqrt(k * x) + 2 * x


def test_every_bit_is_even(words):
    ones = np.array([int((words >> np.uint64(b) & np.uint64(1)).sum()) for b in range(64)])
    assert (np.abs(ones - DRAWS / 2) < 5 * np.sqrt(DRAWS / 4)).all()
    assert ((ones - DRAWS / 2) ** 2 / (DRAWS / 4)).sum() < _chi_square_bound(64)


def test_bytes_and_pairs_of_bytes_are_even(words):
    octets = words.view(np.uint8)
    for place in range(8):
        counts = np.bincount(octets[place::8], minlength=256)
        assert ((counts - DRAWS / 256) ** 2 / (DRAWS / 256)).sum() < _chi_square_bound(255), place
    pairs = np.bincount(words.view(np.uint16), minlength=65536)
    expected = 4 * DRAWS / 65536
    assert ((pairs - expected) ** 2 / expected).sum() < _chi_square_bound(65535)


def test_neighbours_are_not_correlated(words):
    """Serial correlation of the numbers at several distances, and of each bit with the next word's."""
    x = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53 - 0.5
    for lag in (1, 2, 3, 4, 5, 8, 16, 64, 1000):
        r = float(np.dot(x[:-lag], x[lag:])) * 12 / (DRAWS - lag)
        assert abs(r) < 5 / np.sqrt(DRAWS), (lag, r)
    change = words[1:] ^ words[:-1]
    flips = np.array([int((change >> np.uint64(b) & np.uint64(1)).sum()) for b in range(64)])
    assert (np.abs(flips - change.size / 2) < 5 * np.sqrt(change.size / 4)).all()


def test_moments():
    u = philox.random("uniform", DRAWS, np.dtype(np.float32), 42, 7).astype(np.float64)
    power_of = np.ones_like(u)
    for k in range(1, 7):  # E u^k = 1/(k+1), less what rounding down to 24 bits takes
        power_of *= u
        spread = np.sqrt(1 / (2 * k + 1) - 1 / (k + 1) ** 2)
        assert abs(power_of.mean() - 1 / (k + 1)) < 5 * spread / np.sqrt(DRAWS) + 2.0**-24, k
    z = philox.random("normal", DRAWS, np.dtype(np.float32), 42, 7).astype(np.float64)
    power = {0: 1, 2: 1, 4: 3, 6: 15, 8: 105, 10: 945, 12: 10395}  # E z^k; odd ones are 0
    power_of = np.ones_like(z)
    for k in range(1, 7):
        power_of *= z
        expected = power.get(k, 0)
        spread = np.sqrt(power[2 * k] - expected**2)
        assert abs(power_of.mean() - expected) < 5 * spread / np.sqrt(DRAWS), k
    assert 4.9 < np.abs(z).max() < 6.8, "ten million normal draws reach between five and six standard deviations"


@pytest.mark.parametrize("other", [(42, 8), (43, 7), (42, 7 + 2**32), (42 + 2**32, 7), (7, 42)])
def test_streams_and_seeds_are_independent(words, other):
    """Neighbouring streams, neighbouring seeds, and those that differ in high bits only."""
    n = DRAWS // 20
    second = philox.words(n, *other)
    x, y = ((w[:n] >> np.uint64(11)).astype(np.float64) * 2.0**-53 - 0.5 for w in (words, second))
    assert abs(float(np.dot(x, y)) * 12 / n) < 5 / np.sqrt(n)
    assert abs(float(np.dot(x[:-1], y[1:])) * 12 / (n - 1)) < 5 / np.sqrt(n - 1)
    differing = int(np.bitwise_count(words[:n] ^ second).sum())
    assert abs(differing - 32 * n) < 5 * np.sqrt(16 * n)
    assert not np.intersect1d(words[:n], second).size, "64-bit words of two streams should not meet in half a million"
