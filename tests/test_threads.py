"""How the CPU backend's threads and those of NumPy's BLAS get along."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from threadpoolctl import ThreadpoolController

IDLE = """
import asyncio, json, os, sys, threading, time
import numpy as np
a = np.random.default_rng(0).random((700, 700), np.float32)
before = a @ a
done = threading.Event()
if "busy" in sys.argv:
    threading.Thread(target=lambda: time.sleep(1)).start()
if "product" in sys.argv:
    threading.Thread(target=np.dot, args=(np.ones((4000, 4000)), np.ones((4000, 4000)))).start()
if "waiting" in sys.argv:  # as those of a notebook and of a progress bar
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    threading.Thread(target=lambda: done.wait(), daemon=True).start()
    time.sleep(0.1)
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


@pytest.mark.parametrize("kind", ["busy", "product"])
def test_nothing_is_done_beside_threads_that_may_compute(openblas, kind):
    calm, named, same, *_ = run(kind)
    assert not calm and not named and same


def test_threads_that_wait_are_no_hindrance(openblas):
    if not run()[0]:
        pytest.skip("this OpenBLAS cannot be told")
    calm, named, same, *_ = run("waiting")
    assert calm and not named and same
