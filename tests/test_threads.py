"""The threads of C that share out the CPU backend's loops (kernels/host/pool.c), and those of Python."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time

import pytest

import gpugrad as gg
from gpugrad.backends import host_build

CHECK = r"""
static void one(char *const *p, const double *n, i64 range) {
    __atomic_fetch_add(&((i64 *)p[0])[range], 1, __ATOMIC_RELAXED);
    volatile double x = 0;
    for (int i = 0; i < n[0] * (range % 5); i++) x += i;
}
// Jobs of all sizes in a row: -1, or the number that was not done exactly once.
API i64 check_jobs(i64 jobs, i64 most, double work, unsigned seed) {
    static __thread i64 hits[1 << 12];
    char *pointers[1] = {(char *)hits};
    double numbers[1] = {work};
    Ranges ranges = {one, pointers, numbers};
    for (i64 k = 0; k < jobs; k++) {
        seed = seed * 1103515245 + 12345;
        i64 count = seed / 65536 % (most + 1);
        for (i64 i = 0; i < count; i++) hits[i] = 0;
        gg_share_ranges(&ranges, count);
        for (i64 i = 0; i < count; i++)
            if (hits[i] != 1) return i;
    }
    return -1;
}
API i64 how_many(void) { return begun; }
"""


@pytest.fixture(scope="module")
def pool():
    """kernels/host/pool.c with a job for tests, in a library of its own."""
    if host_build.compiler() is None:
        pytest.skip("needs a C compiler")
    from gpugrad.backends import kernel_source

    library = host_build.load(kernel_source.text("host/pool.c") + CHECK, ("-pthread",))[0]
    library.gg_pool_size.argtypes = library.gg_pool_patience.argtypes = (ctypes.c_int64,)
    library.check_jobs.argtypes = (ctypes.c_int64, ctypes.c_int64, ctypes.c_double, ctypes.c_uint)
    library.check_jobs.restype = library.how_many.restype = ctypes.c_int64
    library.gg_pool_size(3)
    yield library
    library.gg_pool_patience(200_000)


@pytest.mark.parametrize("patience", [0, 20_000, 10_000_000])
def test_each_number_is_done_once(pool, patience):
    """With workers that sleep after each job, after some, and never."""
    pool.gg_pool_patience(patience)
    assert pool.check_jobs(4000, 40, 20.0, 1) == -1
    assert pool.check_jobs(100, 4096, 20.0, 2) == -1


def test_jobs_from_several_threads_and_changes_of_size(pool):
    pool.gg_pool_patience(20_000)
    found = []
    callers = [
        threading.Thread(target=lambda seed=seed: found.append(pool.check_jobs(6000, 60, 20.0, seed)))
        for seed in range(3)
    ]
    for caller in callers:
        caller.start()
    while any(caller.is_alive() for caller in callers):
        for size in (1, 4, 2):
            pool.gg_pool_size(size)
            time.sleep(0.002)
    pool.gg_pool_size(3)
    assert found == [-1] * 3
    assert 2 <= pool.how_many() <= 3


def test_a_forked_child_has_workers_of_its_own(pool):
    assert pool.check_jobs(50, 40, 20.0, 1) == -1 and pool.how_many() >= 2
    for seed in range(5):
        child = os.fork()
        if child == 0:
            before = pool.how_many()
            os._exit(0 if before == 0 and pool.check_jobs(500, 40, 20.0, seed) == -1 and pool.how_many() == 2 else 1)
        assert os.waitpid(child, 0)[1] == 0
    assert pool.check_jobs(50, 40, 20.0, 1) == -1


IDLE = """
import os, signal, sys, threading, time
import gpugrad as gg
import numpy as np
gg.set_num_threads(4)
a = gg.randn(300, 300)
b = (a @ a).softmax(-1)
time.sleep(0.05)
start = os.times()
time.sleep(0.2)
end = os.times()
assert end.user + end.system - start.user - start.system < 0.05, "idle workers sleep"
stopped = []
signal.signal(signal.SIGUSR1, lambda *_: stopped.append(threading.current_thread() is threading.main_thread()))
os.kill(os.getpid(), signal.SIGUSR1)
while not stopped:
    a @ a
assert stopped == [True]
"""


def test_idle_workers_sleep_and_leave_signals_and_the_exit_alone():
    run = subprocess.run([sys.executable, "-c", IDLE], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_kernels_and_compiled_programs_follow_the_number_of_threads(threads):
    """What is computed is the same; a number of threads set after the pool began holds as well."""
    before = gg.get_num_threads()
    x = gg.randn(512, 600)
    want = x.softmax(1), (x * 2).tanh().sum(1)
    step = gg.compile(lambda x: (x * 2).tanh().sum(1))
    step(x)
    try:
        gg.set_num_threads(threads)
        assert (x.softmax(1) == want[0]).all()
        assert gg.allclose(step(x), want[1], atol=1e-5)
    finally:
        gg.set_num_threads(before)
