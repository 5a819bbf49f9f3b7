"""Memory that runs out and memory that must not grow; ends of processes, forks and threads; errors found on a device.

What has to be seen from outside (a limit on memory, the end of an interpreter, file descriptors) runs in a process of
its own, with a time limit: a hang is a failure."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

import gpugrad as gg
import gpugrad.nn.functional as F
from gpugrad import nn
from gpugrad.backends import cuda, host_memory, opencl
from gpugrad.backends.kernel_core import KernelCore
from gpugrad.devices import Device, backend_of

ROOT = Path(__file__).resolve().parent.parent
needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def run(code, *arguments, timeout=180, **environment):
    """What a fresh interpreter prints; that it ends, and well, is checked."""
    given = {k: v for k, v in os.environ.items() if not k.startswith("GPUGRAD_")} | {"GPUGRAD_TUNE": "0"} | environment
    code = "from tests import pretend; pretend.register()\n" + textwrap.dedent(code)
    command = [sys.executable, "-W", "error", "-X", "faulthandler", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, env=given)
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr
    return done.stdout


# -- memory runs out --------------------------------------------------------------------------------------------------


def learns(device):
    """A little training works."""
    gg.manual_seed(0)
    model = nn.Linear(4, 1).to(device)
    optimizer = gg.optim.SGD(model.parameters(), 0.1)
    x = gg.randn(32, 4, device=device)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


ABSURD = {
    "zeros": lambda d: gg.zeros(1 << 44, device=d),
    "empty": lambda d: gg.empty(1 << 22, 1 << 22, dtype=gg.int8, device=d),
    "rand": lambda d: gg.rand(1 << 23, 1 << 22, device=d),
    "arange": lambda d: gg.arange(1 << 45, device=d),
    "repeat": lambda d: gg.ones(1 << 10, device=d).repeat(1 << 35),
    "expand and add": lambda d: gg.ones(1, device=d).expand(1 << 45) + 1,
    "outer": lambda d: gg.ones(1 << 21, 1, device=d) * gg.ones(1, 1 << 22, device=d),
    "matmul": lambda d: gg.ones(1 << 21, 1, device=d) @ gg.ones(1, 1 << 22, device=d),
    "contiguous": lambda d: gg.ones(1, device=d).expand(1 << 45).contiguous(),
    "cast": lambda d: gg.ones(1, device=d).expand(1 << 45).to(gg.int64),
    "index": lambda d: gg.ones(1, 1, device=d).expand(8, 1 << 44)[gg.zeros(64, dtype=gg.int64, device=d)],
    "cumsum": lambda d: gg.ones(1, device=d).expand(1 << 45).cumsum(0),
    "one_hot": lambda d: F.one_hot(gg.zeros(1 << 10, dtype=gg.int64, device=d), 1 << 34),
    "pad": lambda d: F.pad(gg.ones(4, device=d), (0, 1 << 45)),
}


@pytest.mark.parametrize("what", ABSURD)
def test_absurd_sizes(device, what):
    with pytest.raises(gg.OutOfMemoryError, match=r"cannot allocate [\d,]{10,} bytes") as caught:
        ABSURD[what](device)
    text = str(caught.value)
    assert (device in text or device == "pretend") and "free" in text and "pool" in text, text
    learns(device)


LIMITED = """
import resource, sys
import numpy as np
import gpugrad as gg
from tests.test_resources import learns

learns("cpu")
pool = gg.zeros(1)._backend._pool
with open("/proc/self/statm") as f:
    used = int(f.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (600 << 20), resource.getrlimit(resource.RLIMIT_AS)[1]))

# The pool gives back what it holds when that is what is missing.
block = gg.ones(100 << 20 >> 2)
more = [gg.ones(100 << 20 >> 2) for _ in range(3)]
del more
assert pool.held >= 300 << 20
large = gg.ones(390 << 20 >> 2)
assert pool.held == 0 and float(large[-1]) == 1.0
del large
pool.clear()

x = gg.ones(100 << 20 >> 2, requires_grad=True)
caught = []
for name, call in {
    "add": lambda: [x + i for i in range(9)],
    "broadcast": lambda: gg.ones(20000, 1) * gg.ones(1, 20000),
    "matmul": lambda: gg.ones(20000, 2) @ gg.ones(2, 20000),
    "half": lambda: [x.half() + 1 for i in range(9)][0].half().sort(),
    "sort": lambda: [x.sort() for _ in range(9)],
    "cumsum": lambda: [x.cumsum(0) for _ in range(9)],
    "softmax": lambda: [x.softmax(0) for _ in range(9)],
    "cat": lambda: gg.cat([x] * 9),
    "conv": lambda: gg.nn.functional.conv2d(gg.ones(1, 64, 1000, 1000), gg.ones(64, 64, 3, 3)),
    "backward": lambda: (x * x).exp().tanh().sum().backward(),
    "numpy": lambda: [x.detach().clone().numpy() for _ in range(1)] + [x.tolist()],
}.items():
    try:
        call()
        caught.append(f"{name}: no error")
    except gg.OutOfMemoryError as error:
        assert "cpu: cannot allocate" in str(error) and "bytes are free" in str(error), error
    except MemoryError:
        assert name == "numpy", name  # Python's own lists
    x.grad = None
assert not caught, caught
del x, block
learns("cpu")
print("ok")
"""


@needs_proc
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS")
def test_a_limit_on_memory():
    assert run(LIMITED, GPUGRAD_THREADS="1", OPENBLAS_NUM_THREADS="1", GPUGRAD_TEST_POISON="0").strip() == "ok"


def test_in_place_work_is_not_begun_twice():
    """After a part was written, trying again would apply it twice."""
    calls = []

    def fails(self, x, out=None):
        calls.append(1)
        raise MemoryError

    owner = type("Owner", (), {"_pool": host_memory.HostPool(), "map": host_memory.retrying(fails, 1)})()
    for out, times in ((None, 2), (np.zeros(1), 1)):
        calls.clear()
        with pytest.raises(gg.OutOfMemoryError, match="cpu: cannot allocate memory"):
            owner.map(0, out)
        assert len(calls) == times


class FailingPool:
    """A pool of device memory that refuses requests beyond ``limit`` in all, as a small device does; what is freed is
    held until ``free_held``."""

    def __init__(self, pool, limit):
        self.pool, self.limit, self.emptied = pool, limit, 0

    def allocate(self, nbytes):
        if self.pool.managed_bytes + nbytes > self.limit:
            raise MemoryError("simulated")
        return self.pool.allocate(nbytes)

    def free_held(self):
        self.emptied += 1
        self.pool.free_held()

    @property
    def active_bytes(self):
        return self.pool.active_bytes

    @property
    def managed_bytes(self):
        return self.pool.managed_bytes


def test_a_small_opencl_device():
    if not gg.is_available("opencl"):
        pytest.skip("no OpenCL device")
    backend = opencl.open(gg.ones(1, device="opencl").device.index)
    backend._pool = FailingPool(backend._pool, 1 << 20)
    held = [backend.empty((1 << 16,), np.dtype(np.float32)) for _ in range(3)]
    del held
    assert backend.memory_stats()["reserved"] >= 3 << 18
    kept = backend.from_host(np.arange(1 << 17, dtype=np.float32))  # needs what the pool held
    assert backend._pool.emptied == 1 and backend.to_host(kept)[-1] == (1 << 17) - 1
    with pytest.raises(gg.OutOfMemoryError) as caught:
        backend.empty((1 << 18,), np.dtype(np.float32))
    text = str(caught.value)
    assert "cannot allocate 1,048,576 bytes" in text and "524,288 bytes are in use" in text, text
    assert "held by the pool" in text and "free" in text and backend._pool.emptied == 2
    small = backend.copy(backend.from_host(np.ones(10, np.float32)))
    assert backend.to_host(small).sum() == 10


def test_a_small_cuda_device():
    """The same of CUDA's backend, by a stand-in for what it needs of CuPy."""
    from types import SimpleNamespace

    class Out(Exception):
        pass

    class Pool:
        held, used, limit, emptied = 0, 0, 100, 0

        def malloc(self, nbytes):
            if self.held + self.used + nbytes > self.limit:
                raise Out
            self.used += nbytes
            return nbytes

        def free_all_blocks(self):
            self.held, self.emptied = 0, self.emptied + 1

        def used_bytes(self):
            return self.used

        def total_bytes(self):
            return self.used + self.held

    pool = Pool()
    pool.held = 60
    finished = []
    stand = object.__new__(cuda.CudaBackend)
    stand.__dict__ |= {
        "index": 0, "_info": SimpleNamespace(name="a stand-in"), "_pool": pool, "_pool_bytes": 0, "_peak": 0,
        "_use": lambda: None, "_finish": lambda: finished.append(1),
        "_cuda": SimpleNamespace(memory=SimpleNamespace(OutOfMemoryError=Out)),
        "_runtime": SimpleNamespace(memGetInfo=lambda: (40, 100)), "_used": SimpleNamespace(now=50, peak=50),
        "_counted": lambda memory, used: memory,
    }  # fmt: skip
    assert stand._allocate(50) == 50 and pool.emptied == 1 and finished
    with pytest.raises(gg.OutOfMemoryError) as caught:
        stand._allocate(51)
    assert pool.emptied == 2
    for part in ("cuda:0 (a stand-in) cannot allocate 51 bytes", "50 bytes are in use", "0 more are held by the pool",
                 "40 of the device's 100 are free"):  # fmt: skip
        assert part in str(caught.value)
    assert stand._allocate(50) == 50


# -- memory does not grow ---------------------------------------------------------------------------------------------

GROWTH = """
import gc, json, os, sys, threading
import gpugrad as gg
from gpugrad import nn
import gpugrad.nn.functional as F

device, compiled, steps = sys.argv[1], sys.argv[2] == "compiled", int(sys.argv[3])
gc.disable()
gg.manual_seed(0)
model = nn.Sequential(nn.Embedding(7, 8), nn.Flatten(), nn.Linear(24, 16), nn.LayerNorm(16), nn.GELU(), nn.Dropout(0.1),
                      nn.Linear(16, 5)).to(device)
optimizer = gg.optim.AdamW(model.parameters(), 1e-3)
xs = gg.randint(0, 7, (64, 16, 3), device=device)
ys = gg.randint(0, 5, (64, 16), device=device)

def step(x, y):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss

run = gg.compile(step) if compiled else step

def figures():
    gg.synchronize(device)
    cycles = gc.collect()  # also empties the interpreter's lists of freed tuples, two thousand of each length
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    stats = gg.memory_stats(device) if device == "opencl" else {}
    return {"cycles": cycles, "blocks": sys.getallocatedblocks(), "objects": len(gc.get_objects()),
            "resident": resident,
            "descriptors": len(os.listdir("/proc/self/fd")), "threads": len(os.listdir("/proc/self/task")),
            "allocated": stats.get("allocated", 0), "reserved": stats.get("reserved", 0)}

found = []
for i in range(steps + steps // 4 + 1):
    loss = run(xs[i % 64], ys[i % 64])
    if i % 20 == 0:
        loss.item()
    if i == steps // 4:
        figures()
    if i >= steps // 4 and i % (steps // 4) == 0:
        found.append(figures())
print(json.dumps(found))
"""


def growth(device, kind, steps, timeout=300):
    """How much each figure grew over ``steps`` training steps, after a quarter as many to warm up; and how many objects
    were in cycles, which the collector would have had to free."""
    found = json.loads(run(GROWTH, device, kind, steps, timeout=timeout, GPUGRAD_THREADS="2",
                           OPENBLAS_NUM_THREADS="1").splitlines()[-1])  # fmt: skip
    grew = {name: found[-1][name] - found[0][name] for name in found[0]}
    return grew | {"cycles": sum(f["cycles"] for f in found)}


@needs_proc
@pytest.mark.parametrize("kind", ["eager", "compiled"])
def test_memory_stays_flat(device, kind):
    """A thousand steps with the cycle collector off. The interpreter's own count of blocks tells a leak of one object a
    step (what is in caches of a few hundred entries comes and goes); the resident size also what is lost outside."""
    grew = growth(device, kind, 1000)
    assert grew["cycles"] == 0 and grew["blocks"] < 950 and grew["objects"] < 100, grew
    assert grew["resident"] < 2 << 20, grew
    assert grew["descriptors"] <= 0 and grew["threads"] <= 0, grew
    assert grew["allocated"] <= 0 and grew["reserved"] <= 0, grew


# -- the end of processes ---------------------------------------------------------------------------------------------

EXIT = {
    "live tensors": """
        x = gg.randn(1000, 1000, device=device, requires_grad=True)
        y = (x @ x).tanh().sum()
        gg.everything = [x, y]
    """,
    "live graph in a cycle": """
        x = gg.randn(100, device=device, requires_grad=True)
        y = x.exp()
        keep = [y]
        keep.append(keep)
        y.register_hook(lambda g: keep and g)
    """,
    "compiled program": """
        f = gg.compile(lambda a: (a * 2).sum())
        y = f(gg.ones(100, device=device))
    """,
    "work still queued": """
        x = gg.ones(300, 300, device=device)
        for _ in range(20):
            x = x @ x * 0.003
    """,
    "an exception": """
        x = gg.ones(3, device=device)
        try:
            x[gg.tensor([7], device=device)].tolist()
        except IndexError as error:
            keep = error
    """,
    "a thread that computes": """
        import threading
        def work():
            x = gg.ones(50, 50, device=device)
            for _ in range(200):
                x = (x @ x) * 0.02
        threading.Thread(target=work).start()
    """,
    "sys.exit in the middle": """
        import sys
        x = gg.randn(500, 500, device=device)
        big = gg.ones(2_000_000, device=device).exp()
        sys.exit(0)
    """,
}


@pytest.mark.parametrize("what", EXIT)
def test_the_interpreter_ends(device, what):
    code = "import sys\nimport gpugrad as gg\ndevice = sys.argv[1]\n" + textwrap.dedent(EXIT[what])
    run(code, device, timeout=60)


FORK = """
import os, sys
import numpy as np
import warnings
import gpugrad as gg

device = sys.argv[1]
warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)

def work(where):
    x = gg.arange(3_000_000, device=where).float()
    return float(((x + 1) * 2).exp().tanh().sum()), float((x[:10000].reshape(100, 100) @ x[:100]).sum())

expected = work("cpu")
live = gg.randn(1000, 1000, device=device)
total = float((live @ live).sum())
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            # The pool of threads and BLAS of the parent are not here; the device's memory is not the child's to free.
            status = 0 if work("cpu") == expected else 2
        finally:
            os._exit(status)
    children.append(child)
for child in children:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert float((live @ live).sum()) == total
print("ok")
"""


@needs_fork
def test_forked_children_compute(device):
    assert run(FORK, device, timeout=60, GPUGRAD_THREADS="3").strip() == "ok"


LOADER = """
import sys, warnings
import numpy as np
import gpugrad as gg
from gpugrad.utils.data import DataLoader, Dataset

device, method = sys.argv[1:]
warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)

class Rows(Dataset):
    def __len__(self):
        return 40
    def __getitem__(self, i):
        large = gg.ones(1 << 19) * i  # enough for the pool of threads
        return large.exp().log().mean(), gg.tensor(i)

if __name__ == "__main__":
    x = gg.randn(600, 600, device=device)
    warm = (x @ x).sum().item(), gg.ones(1 << 21).exp().sum().item()
    model = gg.nn.Linear(1, 1).to(device)
    seen = []
    for epoch in range(2):
        for mean, i in DataLoader(Rows(), 8, num_workers=2, multiprocessing_context=method):
            model(mean[:, None].to(device)).sum().backward()
            seen += i.tolist()
            np.testing.assert_allclose(mean.numpy(), i.numpy(), rtol=1e-5)
    assert seen == list(range(40)) * 2
    iterator = iter(DataLoader(Rows(), 8, num_workers=2, multiprocessing_context=method))
    next(iterator)
    print("ok")  # and end in the middle of an epoch, with workers running
"""


@needs_fork
def test_workers_are_forked_from_a_process_with_device_memory(device):
    assert run(LOADER, device, "fork", timeout=120, GPUGRAD_THREADS="3").strip() == "ok"


FORK_EXIT = """
import os, sys, warnings
import gpugrad as gg

device = sys.argv[1]
warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
x = gg.randn(500, 500, device=device)
y = (x @ x).sum()
y.item()
child = os.fork()
if child == 0:
    sys.exit(0)  # as multiprocessing's children do not: with all of Python's ending, and with the parent's tensors
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert (x @ x).sum().item() == y.item()
print("ok")
"""


@needs_fork
def test_a_forked_child_ends(device):
    assert run(FORK_EXIT, device, timeout=60).strip() == "ok"


# -- threads ----------------------------------------------------------------------------------------------------------


def in_threads(*calls, repeat=1):
    """What the calls return, each in a thread of its own, all begun at the same moment."""
    gate = threading.Barrier(len(calls))
    found, failures = [None] * len(calls), []

    def work(k):
        try:
            gate.wait()
            found[k] = [calls[k]() for _ in range(repeat)]
        except BaseException as error:  # shown below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(calls))]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
        assert not t.is_alive(), "a thread hangs"
    if failures:
        raise failures[0]
    return found


def gradients(device, k):
    """A forward and a backward pass over arrays that are large enough to be shared out; its numbers."""
    rng = np.random.default_rng(k)
    x = gg.tensor(rng.standard_normal((64, 1, 28, 28), np.float32), device=device, requires_grad=True)
    w = gg.tensor(rng.standard_normal((8, 1, 3, 3), np.float32), device=device, requires_grad=True)
    v = gg.tensor(rng.standard_normal((5408, 10), np.float32), device=device, requires_grad=True)
    y = F.gelu(F.conv2d(x, w)).flatten(1)
    loss = F.cross_entropy(y @ v, gg.arange(64, device=device) % 10) + y.softmax(1).square().sum()
    loss.backward()
    return b"".join(t.detach().cpu().numpy().tobytes() for t in (loss, x.grad, w.grad, v.grad))


def test_backward_in_several_threads(device):
    expected = [gradients(device, k) for k in range(3)]
    found = in_threads(*(lambda k=k: gradients(device, k) for k in range(3)), repeat=4)
    assert found == [[e] * 4 for e in expected]


def test_two_devices_in_one_process():
    devices = [d for d in ("cpu", "opencl", "cuda", "pretend") if gg.is_available(d)]
    expected = [gradients(d, 1) for d in devices]
    found = in_threads(*(lambda d=d: gradients(d, 1) for d in devices), repeat=3)
    assert found == [[e] * 3 for e in expected]


def test_a_shared_leaf_and_a_shared_graph(device):
    """Two graphs over the same weight are walked at once; what each adds to the gradient is there."""
    w = gg.ones(1000, device=device, requires_grad=True)
    x = [gg.full((1000,), float(2**k), device=device) for k in range(4)]
    in_threads(*(lambda k=k: (w * x[k]).sum().backward() for k in range(4)), repeat=25)
    assert (w.grad == 25 * 15).all().item(), w.grad.min().item()


def test_one_tensor_read_by_many_threads(device):
    x = gg.randn(400, 400, device=device)
    views = [
        lambda: x.t().contiguous().sum(0),
        lambda: x[::2, 1:].exp().sum(),
        lambda: (x @ x).sum(1),
        lambda: x.sort(1)[0],
    ]
    expected = [f().cpu().numpy().tobytes() for f in views]
    found = in_threads(*(lambda f=f: f().cpu().numpy().tobytes() for f in views), repeat=8)
    assert found == [[e] * 8 for e in expected]


def test_compiled_in_two_threads(device):
    """One compiled function called first from two threads at once, and with two shapes; and compile itself."""

    def plain(a, b):
        return ((a * b).tanh() + a).sum(-1)

    compiled = gg.compile(plain)
    inputs = [(gg.randn(n, 33, device=device), gg.randn(n, 33, device=device)) for n in (4, 4, 9, 17)]
    one = gg.compile(plain)
    # While a call is traced, calls of other threads run as they would without compile, which may round differently.
    expected = [{f(*i).cpu().numpy().tobytes() for f in (plain, one, one)} for i in inputs]
    found = in_threads(*(lambda i=i: compiled(*i).cpu().numpy().tobytes() for i in inputs), repeat=10)
    assert all(set(f) <= e for f, e in zip(found, expected, strict=True))
    for i in inputs:
        compiled(*i)
    assert len(compiled.traces) == 3, "whatever came between, there is a program for each shape"
    found = in_threads(*(lambda i=i: gg.compile(plain)(*i).cpu().numpy().tobytes() for i in inputs), repeat=2)
    assert all(set(f) <= e for f, e in zip(found, expected, strict=True))


# -- errors found on a device -----------------------------------------------------------------------------------------

BAD_INDEX = {
    "gather": (lambda d: gg.ones(4, 3, device=d).gather(1, gg.tensor([[5]], device=d)), 5, 3),
    "index_select": (lambda d: gg.ones(4, 3, device=d).index_select(0, gg.tensor([1, 9], device=d)), 9, 4),
    "embedding": (lambda d: F.embedding(gg.tensor([[1, 6]], device=d), gg.ones(6, 2, device=d)), 6, 6),
    "cross_entropy": (lambda d: F.cross_entropy(gg.ones(2, 5, device=d), gg.tensor([1, 8], device=d)), 8, 5),
    "nll_loss": (lambda d: F.nll_loss(gg.ones(2, 5, device=d), gg.tensor([7, 1], device=d)), 7, 5),
    "take": (lambda d: gg.ones(4, device=d).take(gg.tensor([4], device=d)), 4, 4),
    "scatter": (lambda d: gg.ones(4, device=d).scatter(0, gg.tensor([6], device=d), gg.ones(1, device=d)), 6, 4),
    "index_add": (lambda d: gg.ones(4, device=d).index_add(0, gg.tensor([11], device=d), gg.ones(1, device=d)), 11, 4),
    "one_hot": (lambda d: F.one_hot(gg.tensor([3], device=d), 3), 3, 3),
}


@pytest.mark.parametrize("op", BAD_INDEX)
def test_a_bad_index_is_named(device, op):
    call, index, size = BAD_INDEX[op]
    with pytest.raises((IndexError, RuntimeError)) as caught:
        call(device).tolist()
    text = str(caught.value)
    assert str(index) in text and str(size) in text, text
    assert op.split("_")[0] in text or "index" in text, text
    assert gg.ones(2, device=device).tolist() == [1, 1], "the device stays usable"


SYNC = """
import sys
import gpugrad as gg
x = gg.ones(4, 3, device="opencl")
bad = gg.tensor([7], device="opencl")
zero = gg.zeros(3, dtype=gg.int64, device="opencl")
found = []
def here(name, call, then):
    try:
        call()
        found.append(f"{name} passed")
        then()
    except (IndexError, ZeroDivisionError) as error:
        found.append(f"{name} raised {type(error).__name__}")
    else:
        found.append(f"{name} was not noticed")
for name, call in {
    "index_select": lambda: x.index_select(0, bad),
    "floor_divide": lambda: zero // zero,
    "embedding": lambda: gg.nn.functional.embedding(bad, x),
}.items():
    here(name, call, lambda: gg.synchronize("opencl"))
f = gg.compile(lambda t, i: t.index_select(0, i).sum())
try:
    f(x, bad)
    found.append("compiled passed")
except IndexError:
    found.append("compiled raised IndexError")
print(found)
"""


def test_errors_are_raised_where_they_happen():
    if not gg.is_available("opencl"):
        pytest.skip("no OpenCL device")
    late = run(SYNC + "\ntry:\n    gg.synchronize('opencl')\nexcept IndexError:\n    pass\n")
    assert "'index_select passed', 'index_select raised OutOfRangeError'" in late and "floor_divide passed" in late
    soon = run(SYNC, GPUGRAD_SYNC="1")
    assert "passed" not in soon, soon
    assert soon.count("raised") == 4, soon


def test_waiting_for_launches_replays_one_by_one():
    """Programs that a device would run as one (a graph) are launched one by one, or the error would come after all."""
    if not gg.is_available("opencl"):
        pytest.skip("no OpenCL device")
    backend = opencl.open(gg.ones(1, device="opencl").device.index)
    backend._wait_for_launches()
    assert backend.replay.__func__ is KernelCore.replay
    x = backend.from_host(np.ones(5, np.float32))
    with pytest.raises(IndexError, match="take"):
        backend.take(x, backend.from_host(np.array([9])), 0, "take")


def _narrows(test):
    """Whether an assertion only tells the type checker what the code has seen to: not None, or of a type."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return all(_narrows(v) for v in test.values)
    if isinstance(test, ast.Compare):
        none = isinstance(test.comparators[0], ast.Constant) and test.comparators[0].value is None
        return none and isinstance(test.ops[0], ast.IsNot)
    return isinstance(test, ast.Call) and isinstance(test.func, ast.Name) and test.func.id == "isinstance"


def test_no_assert_guards_what_users_give():
    """Assertions vanish under ``python -O`` and say nothing of the way out."""
    found = []
    for path in sorted((ROOT / "gpugrad").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assert) and not _narrows(node.test):
                found.append(f"{path.relative_to(ROOT).as_posix()}:{node.lineno}: {ast.unparse(node.test)}")
    assert not found, found


def test_backends_of_a_device_are_one():
    """Two threads that ask first for a device get the same backend."""
    pretended = in_threads(*(lambda: backend_of(Device("pretend", 3)) for _ in range(4)))
    assert len({id(b[0]) for b in pretended}) == 1
