"""The benchmarks run, every peer that is here computes the same numbers, and the tables say what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import gpugrad as gg
from benchmarks import peers, report, scaling
from benchmarks.compare import Race
from benchmarks.peers import gpugrad_, numpy_
from benchmarks.worker import WARM_STEPS, Failed
from benchmarks.workloads import WORKLOADS, chosen, disagreement

NAMES = [w.name for w in WORKLOADS]


def computed(peer, workload):
    """What the benchmark compares: the numbers after its warm-up steps."""
    run = peer.build(workload.kind, workload.arguments(tiny=True))
    for _ in range(WARM_STEPS):
        result = run.step()
        peer.wait(result)
    return workload.compared(run.numbers(result), tiny=True)


def ours(workload, device="cpu"):
    return computed(gpugrad_.Peer(device, gg.get_num_threads()), workload)


def assert_agree(mine, theirs, workload):
    assert disagreement(mine, theirs, workload.tolerance) is None
    assert sum(a.size for a in mine) > 0


@pytest.mark.parametrize("name", NAMES)
def test_workload_against_numpy(name):
    (workload,) = chosen([name])
    mine = ours(workload)
    try:
        theirs = computed(numpy_.Peer("cpu", 1), workload)
    except NotImplementedError:
        assert workload.kind in ("network", "gpt", "convolution")  # compared with PyTorch below
        assert all(np.isfinite(a).all() for a in mine)
    else:
        assert_agree(mine, theirs, workload)


@pytest.mark.parametrize("name", NAMES)
def test_workload_against_torch(name, torch):
    from benchmarks.peers import torch_

    (workload,) = chosen([name])
    flag = torch.backends.cudnn.allow_tf32
    try:
        theirs = computed(torch_.Peer("cpu", torch.get_num_threads()), workload)
    finally:
        torch.backends.cudnn.allow_tf32 = flag
    assert_agree(ours(workload), theirs, workload)


@pytest.mark.parametrize("name", ["small-backward", "moons"])
def test_workload_on_each_device(name, device):
    (workload,) = chosen([name])
    assert_agree(ours(workload, device), ours(workload), workload)


def test_training_moves_the_parameters():
    """Else the comparison after some steps would prove nothing about backward and optimizer."""
    for workload in chosen(["moons", "mnist-mlp", "cnn", "cnn-5x5", "gpt", "adamw"]):
        changes = ours(workload)[workload.kind != "adamw" :]  # the first number is the loss
        assert len(changes) > 2
        # Not asked of a single number: the gradient of a last bias can be zero, as many labels pull up as down.
        assert all(a.size == 1 or a.any() for a in changes), workload.name


def test_workloads_are_named_once_and_reproducible():
    assert len(set(NAMES)) == len(NAMES)
    for workload in WORKLOADS:
        first, second = (workload.arguments(tiny=True) for _ in range(2))
        np.testing.assert_equal(first, second)
    with pytest.raises(ValueError, match=r"no workload is called nonsense"):
        chosen(["moons", "nonsense"])


def test_absent_peers_say_why():
    with pytest.raises(peers.Unavailable, match="numpy@cpu"):
        peers.load("numpy", "opencl", 1)
    if not hasattr(gg, "compile"):
        with pytest.raises(peers.Unavailable, match="no compile"):
            peers.load("gpugrad.compile", "cpu", 1)


def test_disagreement_is_found():
    a = [np.linspace(-1, 1, 10_000, dtype=np.float32)]
    assert disagreement(a, [a[0] * (1 + 1e-6)], 1e-5) is None
    assert "off by" in disagreement(a, [a[0] * 1.001], 1e-5)
    one_wrong = a[0].copy()
    one_wrong[7] += 0.01
    assert "largest element" in disagreement(a, [one_wrong], 1e-5)
    assert "off by" in disagreement([np.zeros(3)], [np.ones(3)], 1e-5)
    assert "off by" in disagreement([np.ones(3)], [np.zeros(3)], 1e-5)
    assert "shape" in disagreement(a, [a[0][None]], 1e-5)
    assert "finite" in disagreement([a[0] * np.nan], a, 1e-5)
    assert "results" in disagreement(a, a + a, 1e-5)


class Scripted:
    """A contestant whose answers are known: ``seconds`` per step, ``value`` as its numbers."""

    def __init__(self, name, value, seconds, error=None):
        self.name, self.value, self.seconds, self.error = name, value, seconds, error
        self.asked = []

    def ask(self, method, *arguments):
        self.asked.append(method)
        if self.error is not None:
            raise self.error
        return [np.asarray(self.value)] if method == "build" else self.seconds


def race(*contestants, rounds=4):
    (workload,) = chosen(["softmax"])
    result = Race(workload, list(contestants), tiny=True)
    result.run(rounds, 0.01, 10)
    return result


def test_race_compares_samples_and_leaves_out():
    contestants = [
        Scripted("gpugrad", 1.0, 0.002),
        Scripted("torch", 1.0, 0.001),
        Scripted("jax", 2.0, 0.004),
        Scripted("tinygrad", 1.0, 1.0, Failed("not written", absent=True)),
        Scripted("torch.compile", 1.0, 1.0, Failed("crashed")),
    ]
    result = race(*contestants)
    assert [c.asked.count("sample") for c in contestants] == [4, 4, 4, 0, 0]
    assert len(result.mismatches) == 1 and "jax against gpugrad" in result.mismatches[0]
    assert len(result.failures) == 1 and "torch.compile" in result.failures[0]
    row = result.row("cpu")
    assert row["eager_to_torch"] == row["ours_to_best_peer"] == pytest.approx(2)
    assert row["best_peer"] == "torch"
    assert row["peers"]["jax"]["to_gpugrad"] == pytest.approx(2)
    assert row["peers"]["jax"]["to_best_peer"] == pytest.approx(4)
    assert row["left_out"] == {"tinygrad": "not written", "torch.compile": "crashed"}
    heads, cells = report.columns([row], [c.name for c in contestants])
    assert heads == ["workload", "gpugrad", "torch", "jax", "eager / torch", "gpugrad / best peer"]
    times = ["2.00 ms ±0%", "1.00 ms ±0%", "4.00 ms ±0% (other numbers)"]
    assert cells == [["softmax", *times, "2.00 > 1.2", "2.00 > 1.0"]]


def test_wrong_numbers_are_no_yardstick():
    row = race(Scripted("gpugrad", 1.0, 0.002), Scripted("torch", 1.0, 0.004), Scripted("jax", 2.0, 0.001)).row("cpu")
    assert row["best_peer"] == "torch" and row["differs"] == ["jax"]
    assert row["ours_to_best_peer"] == pytest.approx(0.5)


def test_long_steps_are_sampled_less():
    """One step beyond the budget is enough; short ones get their rounds."""
    slow, quick = Scripted("gpugrad", 1.0, 100.0), Scripted("torch", 1.0, 0.001)
    clock = iter(range(0, 10_000, 60))  # each question takes a minute
    import benchmarks.compare as compare

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare.time, "perf_counter", lambda: next(clock))
        race(slow, quick, rounds=5)
    assert slow.asked.count("sample") == 1
    assert quick.asked.count("sample") == 3


def test_peers_elsewhere_are_no_goal():
    row = race(Scripted("gpugrad", 1.0, 0.002), Scripted("torch@cpu", 1.0, 0.001)).row("opencl")
    assert row["eager_goal"] is row["best_goal"] is None
    both = race(
        Scripted("gpugrad", 1.0, 0.002), Scripted("torch@cpu", 1.0, 0.001), Scripted("tinygrad", 1.0, 0.004)
    ).row("opencl")
    assert (both["best_peer"], both["best_goal"]) == ("tinygrad", 1.0)
    assert both["ours_to_best_peer"] == pytest.approx(0.5)


def test_figures_and_durations():
    f = report.figures([0.3, 0.1, 0.2, 0.5, 0.4])
    assert (f["median"], f["q1"], f["q3"], f["best"], f["samples"]) == (0.3, 0.2, 0.4, 0.1, 5)
    assert report.figures([0.25])["q1"] == 0.25
    assert report.spread(f) == "±33%"
    assert [report.duration(s) for s in (1.234e-7, 4.5e-5, 0.123, 2.5)] == ["123 ns", "45.0 us", "123 ms", "2.50 s"]


def test_compare_from_the_command_line(tmp_path):
    command = [sys.executable, "-m", "benchmarks.compare", "--tiny", "--eager", "--against", "numpy,torch@nowhere"]
    command += ["--only", "one-op,moons", "--rounds", "2", "--sample", "0.001", "--out", str(tmp_path)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "torch@nowhere is left out" in done.stdout
    result = json.loads((tmp_path / "compare_cpu.json").read_text())
    assert [r["workload"] for r in result["rows"]] == ["one-op", "moons"]
    assert result["contestants"] == ["gpugrad", "numpy"]
    for r in result["rows"]:
        assert {f["samples"] for f in r["peers"].values()} == {2}
        assert r["best_peer"] is None  # NumPy by hand is a floor, not a peer
    assert result["about"]["gpugrad"]["gpugrad"] == gg.__version__
    page = (tmp_path / "compare_cpu.md").read_text()
    assert "Every contestant computed the same numbers" in page and "| one addition, 16 elements" in page


def test_slope_of_known_growth():
    axis = scaling.Axis("x", "nothing", (1, 2, 4, 8, 16, 32), lambda gg, device, n: None)
    linear = scaling.Measured(axis, axis.sizes, [1.0, 1.0, 1.0, 8.0, 16.0, 32.0])
    square = scaling.Measured(axis, axis.sizes, [float(n * n) for n in axis.sizes])
    assert linear.slope == pytest.approx(1)
    assert square.slope == pytest.approx(2)
    page = scaling.page([linear, square], "command", "cpu", 2)
    assert "| 1 | 32 | 1.00 | 1.00 |" in page and "| 1 | 32 | 2.00 | 2.00 (superlinear) |" in page
    step = scaling.Measured(axis, axis.sizes, [1.0, 2.0, 4.0, 8.0, 32.0, 64.0])  # dearer from 16 on, and then level
    assert step.slope > scaling.LIMIT and step.last == pytest.approx(1) and not step.superlinear


def test_scaling_figures_are_kept(tmp_path):
    """Axes measured one after another end up on one page; figures from elsewhere do not."""
    first, second = (scaling.Measured(a, a.sizes, [float(n) for n in a.sizes]) for a in scaling.AXES[:2])
    path = tmp_path / "kept.json"
    assert scaling.kept(path, [second], {"cores": 2}) == [second]
    assert [m.axis.name for m in scaling.kept(path, [first], {"cores": 2})] == [first.axis.name, second.axis.name]
    assert scaling.kept(path, [first], {"cores": 4}) == [first]


def test_missed_goals_have_reasons(tmp_path):
    row = race(Scripted("gpugrad", 1.0, 0.002), Scripted("torch", 1.0, 0.001)).row("cpu")
    path = tmp_path / "reasons.toml"
    path.write_text('[softmax]\ncpu = "Because."\n')
    (line,) = report.reasons_of([row], "cpu:0", path)
    assert line.startswith("softmax: eager takes 2.00 times eager PyTorch's time, the goal is 1.2; ")
    assert line.endswith("the goal is 1.0: Because.")
    path.write_text("")
    assert report.reasons_of([row], "cpu", path)[0].endswith("not yet looked into.")
    good = race(Scripted("gpugrad", 1.0, 0.001), Scripted("torch", 1.0, 0.002)).row("cpu")
    assert report.reasons_of([good], "cpu", path) == []


def test_reasons_name_workloads():
    known = tomllib.loads(report.REASONS.read_text())
    assert set(known) <= set(NAMES)
    assert all(set(by_device) <= {"cpu", "opencl", "cuda"} for by_device in known.values())


@pytest.mark.parametrize("axis", scaling.AXES, ids=lambda axis: axis.name)
def test_scaling_axis_runs(axis):
    measured = scaling.measure(axis, "cpu", 1, 0.0, largest=axis.sizes[2])
    assert measured.sizes == axis.sizes[:3]
    assert all(s > 0 for s in measured.seconds)
