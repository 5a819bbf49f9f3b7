"""How the CPU backend's threads and those of NumPy's BLAS get along."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from threadpoolctl import ThreadpoolController

IDLE = """
import json, os, sys, threading, time
import numpy as np
a = np.random.default_rng(0).random((700, 700), np.float32)
before = a @ a
if "thread" in sys.argv:
    threading.Thread(target=time.sleep, args=(1,)).start()
import gpugrad as gg
from gpugrad.backends import threads
gg.ones(3)

def used():
    time.sleep(0.02)
    start = os.times()
    time.sleep(0.05)
    end = os.times()
    return end.user + end.system - start.user - start.system

same, idle = True, []
for _ in range(5):
    same &= bool((a @ a == before).all())
    idle.append(used())
child = os.fork()
if child == 0:
    os._exit(0 if (a @ a == before).all() and used() < 0.03 else 1)
well = os.waitpid(child, 0)[1] == 0
print(json.dumps([threads.calm_blas(), "OPENBLAS_THREAD_TIMEOUT" in os.environ, same, min(idle), well]))
"""


def run(*arguments, **env):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OPENBLAS", "OMP", "GPUGRAD"))} | env
    done = subprocess.run([sys.executable, "-c", IDLE, *arguments], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def openblas():
    kinds = {(x.internal_api, getattr(x, "threading_layer", "")) for x in ThreadpoolController().lib_controllers}
    if ("openblas", "pthreads") not in kinds:
        pytest.skip("NumPy's BLAS is another")
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two processors")


def test_idle_threads_of_blas_sleep(openblas):
    """They would spin for a tenth of a second; products are the same, and in a forked child."""
    calm, named, same, idle, child = run()
    if not calm:
        pytest.skip("this OpenBLAS cannot be told")
    assert not named and same and idle < 0.03 and child


def test_what_the_user_has_set_stays(openblas):
    calm, named, same, *_ = run(OPENBLAS_THREAD_TIMEOUT="10")
    assert not calm and named and same


def test_nothing_is_done_beside_other_threads(openblas):
    calm, named, same, *_ = run("thread")
    assert not calm and not named and same
