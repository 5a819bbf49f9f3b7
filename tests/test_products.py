"""Matrix products of the CPU backend: parts that follow from shapes, by C's threads and by Python's."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

import gpugrad as gg
from gpugrad.backends import host_build, products
from gpugrad.backends.blas import Blas, numpy_blas
from gpugrad.devices import Device, backend_of

SHAPES = [
    (128, 128, 128), (129, 65, 131), (1, 700, 900), (900, 700, 1), (1, 400_000, 1), (2, 300_000, 2), (17, 4000, 16),
    (64, 9216, 128), (300, 20, 3000), (1000, 1, 1100), (513, 257, 511), (40, 40, 4000), (5000, 30, 8),
]  # fmt: skip
BATCHES = [((6,), (6,)), ((2, 3), (3,)), ((1, 5), (4, 1)), ((48,), ()), ((), (7,)), ((2, 1, 3), (2, 2, 1))]


#: of BLAS: NumPy 2.2's OpenBLAS, begun with one thread, crashes with more than processors
MOST = 4 if np.lib.NumpyVersion(np.__version__) >= "2.4.0" else min(4, os.cpu_count() or 1)


@pytest.fixture
def multiply():
    return backend_of(Device("cpu"))._multiply


def by_numpy(a, b, out=None):
    """The way of machines without a C compiler."""
    backend = backend_of(Device("cpu"))
    way = products.Products(backend._workers, numpy_blas(), backend.empty)
    way._native = lambda dtype: None
    return way(a, b, out)


def kinds(shape, dtype, rng):
    """Matrices of ``shape`` that lie in memory in all ways that BLAS takes and does not."""
    *batch, m, n = shape
    x = rng.standard_normal(shape).astype(dtype)
    yield x
    yield np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2)
    wide = np.zeros((*batch, m + 3, n + 5), dtype)
    wide[..., 1 : m + 1, 2 : n + 2] = x
    yield wide[..., 1 : m + 1, 2 : n + 2]
    sparse = np.zeros((*batch, m, 2 * n), dtype)
    sparse[..., ::2] = x
    yield sparse[..., ::2]
    yield np.ascontiguousarray(x[..., ::-1, ::-1])[..., ::-1, ::-1]


def assert_product(got, a, b):
    want = a.astype(np.float64) @ b.astype(np.float64)
    size = np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64)
    assert got.dtype == a.dtype and got.shape == want.shape
    eps = np.finfo(a.dtype).eps
    assert (np.abs(got - want) <= eps * (2 + a.shape[-1] ** 0.5) * size + eps).all()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("m, k, n", SHAPES)
@pytest.mark.parametrize("way", ["native", "numpy"])
def test_any_layout(m, k, n, dtype, way, multiply):
    rng = np.random.default_rng(m * k + n)
    function = multiply if way == "native" else by_numpy
    for a, b in zip(kinds((m, k), dtype, rng), reversed(list(kinds((k, n), dtype, rng))), strict=True):
        got = function(a, b)
        assert_product(got, a, b)
        assert got.flags.c_contiguous
        for out in kinds((m, n), dtype, rng):
            beside = out.base.copy() if out.base is not None else None
            assert function(a, b, out) is out
            assert_product(out, a, b)
            if beside is not None and out.base.shape == (m + 3, n + 5):
                out[...] = beside[1 : m + 1, 2 : n + 2]
                np.testing.assert_array_equal(out.base, beside, "nothing beside the result is written")


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("batches", BATCHES, ids=str)
@pytest.mark.parametrize("m, k, n", [(90, 80, 70), (300, 70, 200), (1, 600, 500), (30, 40, 20)])
def test_batches(batches, m, k, n, dtype, multiply):
    rng = np.random.default_rng(5)
    for a, b in zip(
        kinds((*batches[0], m, k), dtype, rng), reversed(list(kinds((*batches[1], k, n), dtype, rng))), strict=True
    ):
        for function in (multiply, by_numpy):
            got = function(a, b)
            assert_product(got, a, b)
            heads = np.zeros((*got.shape[:-1], 2, n), dtype)[..., 1, :]
            assert_product(function(a, b, heads), a, b)
    batch = np.broadcast_shapes(*batches)
    a, b = (np.broadcast_to(x, (*batch, *x.shape[-2:])) for x in (a, b))  # as the backend gets them
    assert_product(multiply(a, b), a, b)


def test_nothing_to_multiply(multiply):
    for a, b in (((0, 5), (5, 3)), ((5, 0), (0, 3)), ((5, 3), (3, 0)), ((0, 5, 3), (0, 3, 5))):
        got = multiply(np.ones(a, "f4"), np.ones(b, "f4"))
        assert got.shape == (*a[:-1], b[-1]) and not got.any()


def test_infinities_and_what_was_in_the_result(multiply):
    """What BLAS finds in the memory of a result is not added, even if it is NaN."""
    a, b = np.ones((200, 200), "f4"), np.ones((200, 200), "f4")
    a[7, 3] = np.inf
    out = np.full((200, 200), np.nan, "f4")
    multiply(a, b, out)
    assert (out[7] == np.inf).all() and (np.delete(out, 7, 0) == 200).all()


@pytest.mark.parametrize("vector", [False, True])
def test_parts_grow_with_the_work(vector):
    counts = [products.part_count(1 << e, vector) for e in range(40)]
    assert counts[:18] == [1] * 18 and counts[20 if vector else 22] >= 2 and counts[-1] == products.MOST_PARTS
    assert all(b in (a, 2 * a) for a, b in zip(counts, counts[1:], strict=False))
    for m, n, count in ((1, 5000, 8), (5000, 1, 8), (40, 3000, 16), (3000, 40, 16), (1000, 1000, 64), (20, 20, 8)):
        rows, columns = products.cuts(m, n, count)
        least = products.LEAST_VECTOR if 1 in (m, n) else products.LEAST
        assert rows * columns <= count
        assert (rows == 1 or m // rows >= least) and (columns == 1 or n // columns >= least)
    assert products.cuts(5000, 1, 8) == (8, 1) and products.cuts(1, 5000, 8) == (1, 8)
    assert products.cuts(1000, 1000, 64) == (8, 8) and products.cuts(20, 20, 8) == (1, 1)


# -- how many threads there are ---------------------------------------------------------------------------------------


def every_product(dtype):
    """Products of many sizes, one after the other, with vectors and with themselves, as bytes."""
    rng = np.random.default_rng(3)
    multiply = backend_of(Device("cpu"))._multiply
    for m, k, n in [*SHAPES, (61, 61, 61), (64, 64, 64), (65, 65, 65), (70, 90, 80), (100, 90, 110), (33, 1000, 9)]:
        a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
        yield multiply(a, b).tobytes()
        yield multiply(np.ascontiguousarray(b.T), np.ascontiguousarray(a.T)).tobytes()
        yield multiply(b.T, a.T).tobytes()
        if m < 1000:
            yield multiply(a, a.T).tobytes()
    for shape in ((40, 30, 50), (7, 100, 100), (12, 4, 64, 32)):
        a = rng.standard_normal(shape).astype(dtype)
        yield multiply(a, a.swapaxes(-1, -2)).tobytes()


def factorizations(dtype):
    rng = np.random.default_rng(4)
    a = gg.tensor(rng.standard_normal((300, 300)).astype(dtype))
    s = a @ a.mT + 300 * gg.eye(300, dtype=a.dtype)
    found = [gg.linalg.inv(s), gg.linalg.solve(s, a), gg.linalg.cholesky(s), gg.linalg.qr(a)[0], gg.linalg.eigh(s)[0],
             gg.linalg.svd(a)[1], gg.linalg.det(s / 300), gg.linalg.lu_factor(a)[0]]  # fmt: skip
    yield from (x.numpy().tobytes() for x in found)
    yield gg.nn.init.orthogonal_(gg.empty(200, 210)).numpy().tobytes()


@pytest.mark.parametrize("what", [every_product, factorizations])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_the_same_bits_for_any_number_of_threads(what, dtype):
    ours = gg.get_num_threads()
    controller = ThreadpoolController()
    with controller.limit(limits=None):
        found = []
        try:
            for n in (1, 2, 3, 4):
                gg.set_num_threads(n)
                of_blas = min(5 - n, MOST)
                controller.limit(limits=of_blas, user_api="blas")
                gg.manual_seed(0)
                found.append(list(what(dtype)))
                assert numpy_blas()._get() == of_blas
        finally:
            gg.set_num_threads(ours)
    assert all(f == found[0] for f in found)


# -- BLAS is given back -----------------------------------------------------------------------------------------------


@pytest.fixture
def several():
    """How many threads BLAS has for the test."""
    if MOST < 2:
        pytest.skip("needs two processors")
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        yield 2


def test_blas_has_one_thread_meanwhile(several):
    blas = numpy_blas()
    with blas:
        assert blas._get() == 1
        with blas:
            pass
        assert blas._get() == 1
    assert blas._get() == several
    with pytest.raises(KeyError), blas:
        raise KeyError
    assert blas._get() == several


def test_what_is_set_meanwhile_stays(several):
    blas = numpy_blas()
    controller = ThreadpoolController()
    with blas:
        controller.limit(limits=MOST, user_api="blas")
    assert blas._get() == MOST
    with blas, blas:
        assert blas._get() == 1
        controller.limit(limits=MOST, user_api="blas")
        with blas:
            pass
        assert blas._get() == MOST
    assert blas._get() == MOST


def test_threads_that_come_and_go(several):
    """BLAS has one thread as long as anybody is inside."""
    blas, seen = numpy_blas(), []

    def some():
        for _ in range(2000):
            with blas:
                seen.append(blas._get())

    threads = [threading.Thread(target=some) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(seen) == {1} and blas._get() == several


def test_a_forked_child_has_its_threads_back(several):
    blas = numpy_blas()
    with blas:
        child = os.fork()
        if child == 0:
            good = blas._get() == several
            with blas:
                good = good and blas._get() == 1
            os._exit(0 if good and blas._get() == several else 1)
        assert os.waitpid(child, 0)[1] == 0
    assert blas._get() == several


class _Library:
    """A BLAS of which little is known."""

    internal_api, filepath, threading_layer = "blis", "/usr/lib/libblis.so", "openmp"

    def __init__(self, threads):
        self.threads = threads

    def get_num_threads(self):
        return self.threads

    def set_num_threads(self, n):
        self.threads = n

    def info(self):
        return {"internal_api": "blis", "version": "1.0"}


def test_other_libraries(monkeypatch):
    """Where it is not known which of several libraries NumPy has, all of them are held; C leaves them alone."""
    first, second = _Library(4), _Library(2)

    class Controller:
        lib_controllers = (first, second)

        def select(self, **_):
            return self

    monkeypatch.setattr("gpugrad.backends.blas.ThreadpoolController", Controller)
    blas = Blas()
    with blas:
        assert (first.threads, second.threads) == (1, 1)
        blas.begin_thread()
    assert (first.threads, second.threads) == (4, 2)
    assert blas.threads_differ and not blas.is_openblas and blas.routines(np.dtype("f4")) is None
    blas.begin_thread()
    assert (first.threads, second.threads) == (1, 1)
    assert blas.name == "blis 1.0"
    Controller.lib_controllers = ()
    none = Blas()
    with none:
        assert none.name == "" and none.routines(np.dtype("f8")) is None
    backend = backend_of(Device("cpu"))
    way = products.Products(backend._workers, none, backend.empty)
    a = np.random.default_rng(0).standard_normal((200, 150))
    assert_product(way(a, a.T), a, a.T)


def test_routines_are_those_of_numpy():
    blas = numpy_blas()
    if blas.routines(np.dtype("f4")) is None:
        pytest.skip("NumPy's BLAS is not OpenBLAS with threads of its own")
    assert blas.routines(np.dtype("f8")).bits in (32, 64)
    assert blas.name.startswith("openblas ")


_WITHOUT = """
import hashlib, sys
import numpy as np
import gpugrad as gg
from gpugrad.backends import products
a = gg.tensor(np.random.default_rng(0).standard_normal((300, 400)), dtype=gg.float32)
b = a @ a.mT
assert np.abs(b.numpy() - a.numpy().astype("f8") @ a.numpy().T.astype("f8")).max() < 1e-3
backend = b._backend
assert (backend._multiply._native(np.dtype("f4")) is None) == (sys.argv[1] == "none")
"""


@pytest.mark.parametrize("compiler", ["none", "some"])
def test_without_a_compiler(compiler):
    if host_build.compiler() is None or numpy_blas().routines(np.dtype("f4")) is None:
        pytest.skip("needs a C compiler and OpenBLAS")
    env = {**os.environ} | ({"GPUGRAD_CC": ""} if compiler == "none" else {})
    run = subprocess.run([sys.executable, "-c", _WITHOUT, compiler], capture_output=True, text=True, env=env)
    assert run.returncode == 0, run.stderr
