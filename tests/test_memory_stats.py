"""Memory figures: what is allocated, its peak, what a pool holds."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import gpugrad as gg

MIB = 1 << 20


@pytest.fixture
def figures(device):
    """allocated and peak since the test began, in MiB."""
    gc.collect()
    start = gg.memory_stats(device)["allocated"]
    gg.reset_peak_memory_stats(device)

    def since():
        stats = gg.memory_stats(device)
        assert stats["reserved"] >= stats["allocated"] and stats["peak"] >= stats["allocated"]
        return (stats["allocated"] - start) / MIB, (stats["peak"] - start) / MIB

    return since


def close(found, wanted):
    return found == pytest.approx(wanted, rel=0.13, abs=0.1)  # blocks are rounded up, by an eighth at most


def test_allocated_follows_tensors(device, figures):
    assert close(figures(), (0, 0))
    x = gg.zeros(4 * MIB // 4, device=device)
    y = x + 1
    assert close(figures(), (8, 8))
    view = y[::2]
    del x, y
    assert close(figures(), (4, 8))  # a view holds all of its memory
    del view
    assert close(figures(), (0, 8))


def test_peak_begins_anew(device, figures):
    x = gg.ones(2 * MIB // 4, device=device)
    (x * 2) * 3
    assert close(figures(), (2, 6))
    gg.reset_peak_memory_stats(device)
    assert close(figures(), (2, 2))
    x = x * 2
    assert close(figures(), (2, 4))


@pytest.mark.parametrize(
    "make",
    [
        lambda d: gg.tensor(np.ones((512, 512), np.float32), device=d),
        lambda d: gg.ones(512, 1, device=d) + gg.ones(1, 512, device=d),
        lambda d: gg.ones(512, 1, device=d) @ gg.ones(1, 512, device=d),
        lambda d: gg.arange(512 * 512, dtype=gg.float32, device=d).reshape(512, 512),
        lambda d: gg.randn(512, 512, device=d),
        lambda d: gg.ones(2, 512, 512, device=d).sum(0),
        lambda d: gg.ones(4, 512, device=d)[gg.zeros(512, dtype=gg.int64, device=d)],
        lambda d: gg.ones(512, 512, dtype=gg.float16, device=d).to(gg.float32),
        lambda d: gg.ones(512, 512, device=d).t().contiguous(),
        lambda d: gg.nn.functional.softmax(gg.ones(512, 512, device=d), -1),
        lambda d: gg.cat([gg.ones(256, 512, device=d), gg.zeros(256, 512, device=d)]),
        lambda d: gg.ones(512, 512, device=d).clone(),
        lambda d: gg.ones(512, 512, dtype=gg.float16, device=d).cumsum(0, dtype=gg.float32),
    ],
)
def test_whatever_makes_a_tensor_counts(device, figures, make):
    made = make(device)
    gc.collect()
    assert made.nbytes == MIB
    now, peak = figures()
    assert close(now, 1) and peak >= now
    del made
    assert close(figures()[0], 0)


def test_results_between_the_thresholds(device, figures):
    """128 KiB: below what the CPU's pool lends, above what it counts."""
    held = [gg.ones(128, 256, device=device) + i for i in range(16)]
    assert close(figures()[0], 2)
    held = [x.tanh() @ x.t() for x in held]  # 64 KiB each
    assert close(figures()[0], 1)
    del held
    assert close(figures()[0], 0)


def test_gradients_and_graph(device, figures):
    x = gg.ones(1024, 256, device=device, requires_grad=True)
    y = x.exp()  # kept for the derivative
    loss = (y * 2).sum()
    assert close(figures()[0], 2)
    loss.backward()
    del y, loss
    assert close(figures()[0], 2)  # x and its gradient
    x.grad = None
    assert close(figures()[0], 1)


def test_memory_of_others_is_not_counted(figures, device):
    if device != "cpu":
        pytest.skip("memory is shared on the CPU")
    theirs = np.ones(MIB, np.float32)
    x = gg.from_numpy(theirs)
    assert close(figures(), (0, 0))
    assert x[::2].sum().item() == MIB / 2


def test_threads_count_together(device, figures):
    import threading

    def work():
        for _ in range(30):
            x = gg.ones(64, 512, device=device)
            (x + 1) * 2

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    now, peak = figures()
    assert close(now, 0) and 0.3 <= peak <= 2.1


def test_cuda_module_has_the_figures():
    gg.cuda.reset_peak_memory_stats()
    assert gg.cuda.max_memory_allocated() >= gg.cuda.memory_allocated() >= 0
    assert gg.cuda.memory_reserved() >= gg.cuda.memory_allocated()


def test_a_device_that_cannot_reset_says_so():
    from gpugrad.backends.base import Backend

    class Bare(Backend):
        name = "bare"

    Bare.__abstractmethods__ = frozenset()
    with pytest.raises(NotImplementedError, match="bare"):
        Bare().reset_peak_memory_stats()
