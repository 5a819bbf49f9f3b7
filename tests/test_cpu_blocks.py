"""The CPU backend's blocks, threads and memory pool: the same results as in one piece, whatever the threads."""

from __future__ import annotations

import gc
import os
import threading

import numpy as np
import pytest

import gpugrad as gg
from gpugrad.backends import cpu, cpu_blocks
from gpugrad.backends.host_memory import SMALLEST, HostPool, is_pooled
from gpugrad.ops import OPS
from tests.test_ops import call, make_inputs, rng_for


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few elements, from one element on."""
    monkeypatch.setattr(cpu, "LARGE", 1)
    monkeypatch.setattr(cpu_blocks, "LARGE", 1)
    monkeypatch.setattr(cpu_blocks, "BLOCK", 4)


ROWS = [op for op in OPS.values() if op.samples and op.kind == "elementwise"]


@pytest.mark.parametrize("op", [pytest.param(op, id=op.name) for op in ROWS])
def test_elementwise_rows(op, monkeypatch):
    """Every elementwise row in blocks, for every kind of operand its samples have."""
    kind = np.float32 if "f" in op.dtypes else np.int64
    for sample in op.samples:
        arrays = make_inputs(op, sample, kind, rng_for(op.name))
        whole = call(op, sample, [gg.tensor(a) for a in arrays])
        with monkeypatch.context() as patch:
            patch.setattr(cpu, "LARGE", 1)
            patch.setattr(cpu_blocks, "BLOCK", 4)
            blocked = call(op, sample, [gg.tensor(a) for a in arrays])
        assert blocked.dtype is whole.dtype and blocked.shape == whole.shape
        np.testing.assert_allclose(blocked.numpy(), whole.numpy(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [gg.float16, gg.bfloat16, gg.float64, gg.int32, gg.uint8, gg.bool])
def test_dtypes(dtype, small_blocks):
    a = gg.tensor([[1, 0, 3, 1, 2], [0, 5, 1, 1, 7], [1, 1, 0, 0, 2]]).to(dtype)
    b = gg.tensor([[1, 2, 1, 1, 2], [1, 5, 0, 1, 3], [1, 0, 0, 1, 2]]).to(dtype)
    for f in (gg.add, gg.mul, gg.eq, gg.maximum, gg.div, gg.logical_xor):
        got = f(a, b)
        want = f(a.double(), b.double())
        np.testing.assert_allclose(got.double().numpy(), want.to(got.dtype).double().numpy(), rtol=1e-2)
    assert (a + 1.5).dtype is (dtype if dtype.is_floating_point else gg.float32)


def test_in_place(small_blocks):
    x = gg.arange(12.0)
    x.add_(1).mul_(x)
    assert x.tolist() == [(i + 1) ** 2 for i in range(12)]
    y = gg.arange(12.0)
    y[1:].copy_(y[:-1] * 2)
    assert y.tolist() == [0, *[2 * i for i in range(11)]]
    z = gg.arange(12.0)
    z[1:] += z[:-1]  # an operand that overlaps what is written, one element on
    assert z.tolist() == [0, *[2 * i + 1 for i in range(11)]]


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4), (1, 9), (9, 1), (5, 1, 4)])
@pytest.mark.parametrize("name", ["sum", "prod", "amax", "amin", "any", "all"])
def test_reductions(shape, name, small_blocks):
    rng = np.random.default_rng(0)
    array = rng.integers(-2, 3, shape).astype(np.float32)
    reference = {"amax": np.max, "amin": np.min}.get(name) or getattr(np, name)
    axes = [None, *range(len(shape)), tuple(range(len(shape)))] + ([(0, 1), (1, 2), (0, 2)] if len(shape) == 3 else [])
    for axis in axes:
        got = getattr(gg.tensor(array), name)(*(() if axis is None else (axis,)))
        np.testing.assert_allclose(got.numpy(), reference(array, axis=axis), rtol=1e-6)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_same_bits_for_any_number_of_threads(threads, monkeypatch):
    before = gg.get_num_threads()
    gg.manual_seed(0)
    x, bias = gg.randn(600, 1000), gg.randn(1000)
    try:
        results = []
        monkeypatch.setattr(cpu, "LARGE", 1 << 12)
        monkeypatch.setattr(cpu_blocks, "LARGE", 1 << 12)
        monkeypatch.setattr(cpu_blocks, "BLOCK", 1 << 12)
        for n in (1, threads):
            gg.set_num_threads(n)
            y = (x * 1.7 + bias).tanh()
            results.append(
                [
                    y,
                    y.sum(),
                    y.sum(0),
                    y.sum(1),
                    y.amax(0),
                    y.t().contiguous(),
                    (y > 0).all(1),
                    y.softmax(1),
                    y.log_softmax(1),
                ]
            )
    finally:
        gg.set_num_threads(before)
    for a, b in zip(*results, strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes()


@pytest.mark.parametrize("n", [1, 7, 512, 513, 1000, 1025, 5003, 452_324])
def test_sums_and_maxima_of_rows(n):
    """Rows are cut into pieces, of which fewer elements than pieces may be left over."""
    x = np.random.default_rng(n).standard_normal((6, n)).astype(np.float32)
    x[3, n - 1] = np.inf
    y = np.ones_like(x) * 0.5
    np.testing.assert_allclose(cpu_blocks.row_sums(x), x.astype(np.float64).sum(1), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(cpu_blocks.row_dots(x, y), 0.5 * x.astype(np.float64).sum(1), rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(cpu_blocks.row_maxima(x), x.max(1))
    x[2, n // 2] = np.nan
    assert np.isnan(cpu_blocks.row_maxima(x)).tolist() == [i == 2 for i in range(6)]


@pytest.mark.parametrize("rows", [9, 1 << 17])
def test_slices_that_are_added_once_and_often(rows):
    """Few and many slices with one destination take different ways."""
    rng = np.random.default_rng(0)
    index = np.concatenate([rng.integers(0, rows, 40), np.repeat([2, 5, rows - 1], [3, 4, 30])])
    rng.shuffle(index)
    source = rng.standard_normal((len(index), 3))
    want = np.ones((rows, 3))
    got = want.copy()
    np.add.at(want, index, source)
    cpu_blocks.add_slices(got, index, source, gg.ones(1)._backend._share)
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_errors_come_out_of_threads():
    def fail(i):
        raise ValueError(f"block {i}")

    workers = gg.ones(1)._backend._workers
    with pytest.raises(ValueError, match="block"):
        workers.share(fail, 8)
    seen = []
    workers.share(seen.append, 100)
    assert sorted(seen) == list(range(100))


def test_shared_work_is_not_shared_again():
    """Convolution shares out the batch; what it copies meanwhile is large enough to be shared out itself."""
    workers = gg.ones(1)._backend._workers
    before = gg.get_num_threads()
    try:
        gg.set_num_threads(2)
        inner = []
        workers.each(lambda i: workers.share(inner.append, 10), range(8))
        assert sorted(inner) == sorted(list(range(10)) * 8)
    finally:
        gg.set_num_threads(before)


# -- the memory pool ---------------------------------------------------------------------


def test_blocks_are_used_again():
    pool = HostPool(limit=1 << 26)
    a = pool.empty((1 << 20,), np.dtype(np.float32))
    address, view = a.ctypes.data, a[10:20]
    assert is_pooled(a) and is_pooled(view) and a.flags.c_contiguous and a.flags.writeable
    del a
    assert pool.held == 0  # the view keeps it
    del view
    assert pool.held >= 4 << 20
    b = pool.empty((1024, 1024), np.dtype(np.float32))
    assert b.ctypes.data == address and pool.held == 0
    del b
    pool.clear()
    assert pool.held == 0


def test_small_and_half_arrays():
    pool = HostPool()
    assert not is_pooled(pool.empty((10,), np.dtype(np.float32)))
    half = pool.empty((SMALLEST,), gg.bfloat16.numpy)
    assert is_pooled(half) and half.dtype == gg.bfloat16.numpy and half.shape == (SMALLEST,)


def test_no_more_is_held_than_the_limit():
    pool = HostPool(limit=3 << 20)
    arrays = [pool.empty((2 << 20,), np.dtype(np.uint8)) for _ in range(4)]
    arrays.clear()
    assert pool.held <= 3 << 20


def test_pool_in_threads():
    pool = HostPool()
    wrong = []

    def work(value):
        for _ in range(50):
            a = pool.empty((SMALLEST,), np.dtype(np.uint8))
            a[:] = value
            if not (a == value).all():
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_users_arrays_outlive_their_tensors():
    x = gg.ones(1 << 20)
    array = (x + 1).numpy()
    gc.collect()
    for _ in range(4):
        x = x + 5
    assert (array == 2).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_child_computes():
    x = gg.ones(1 << 20)
    assert (x + 1).sum().item() == 2 << 20
    child = os.fork()
    if child == 0:
        os._exit(0 if (x + 2).sum().item() == 3 << 20 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
