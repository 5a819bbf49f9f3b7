"""The profiler: what it records on every device, its figures against known ones, and that nothing of it stays."""

from __future__ import annotations

import gzip
import json
import threading
from collections import defaultdict
from time import perf_counter_ns

import pytest

import gpugrad as gg
from gpugrad import nn
from gpugrad.backends import cuda
from gpugrad.profiler import costs, recording
from gpugrad.profiler.peaks import _measured


def backend_of(device):
    return gg.zeros(1, device=device)._backend


def only(p, name):
    """The one event called ``name``."""
    found = [e for e in p.events if e.name == name]
    assert len(found) == 1, f"{name}: {[e.name for e in p.events]}"
    return found[0]


def train(device, steps=2):
    """A profile of a few steps of a small network, and how long they took by the host's clock."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).to(device)
    optimizer = gg.optim.SGD(model.parameters(), lr=0.1)
    x, y = gg.randn(8, 1, 8, 8, device=device), gg.tensor([0, 1, 2, 3, 4, 0, 1, 2], device=device)
    began = perf_counter_ns()
    with gg.profile() as p:
        for _ in range(steps):
            with gg.profiler.record_function("forward"):
                loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return p, perf_counter_ns() - began


def test_a_training_step(device):
    p, took = train(device)
    calls = {a.key: a.count for a in p.key_averages()}
    for name in ("convolution", "relu", "linear", "convolution (backward)", "relu (backward)", "linear (backward)"):
        assert calls[name] >= 2, calls
    # Two products and two biases added: what a call does inside, in whatever thread, is part of it.
    assert calls["convolution"] == 4
    assert any(name.endswith(" (SGD.step)") for name in calls)
    assert calls["forward"] == calls["Optimizer.step#SGD.step"] == 2
    phases = {e.phase for e in p.events}
    assert phases == {"", "backward", "SGD.step"}
    assert all(e.phase == "" for e in p.events if "forward" in e.ranges)
    assert {e.op for e in p.events if e.phase == "" and "forward" not in e.ranges} == {"fill"}  # the gradient 1
    assert {str(e.device) for e in p.events} == {str(gg.device(device))}
    assert all(e.bytes > 0 for e in p.events)

    # One queue, or on the CPU one thread, does one thing after another.
    work = sum(e.device_time_ns for e in p.events)
    assert 0 < work <= p.wall_time * 1e3 <= took
    for e in p.events:
        assert e.spans_ns and all(begin <= end for begin, end in e.spans_ns)
        assert e.cpu_time > 0
    assert sum(a.self_device_time_total for a in p.key_averages()) == pytest.approx(work / 1e3)


def test_half_products_that_are_not_rounded_yet(device):
    """A half product that more is added to comes as float32: its event has those bytes."""
    x, w, b = (gg.ones(*shape, device=device, dtype=gg.float16) for shape in ((4, 8), (3, 8), (3,)))
    with gg.profile() as p:
        gg.nn.functional.linear(x, w, b)
    product, addition = [e for e in p.events if e.op == "linear"]
    assert (product.bytes, product.flops) == (2 * (32 + 24) + 4 * 12, 2 * 12 * 8)
    assert (addition.bytes, addition.flops) == (4 * 12 + 2 * 3 + 2 * 12, 12)


@pytest.mark.parametrize(
    ("name", "run", "nbytes", "flops"),
    [
        ("add", lambda a, b: a + b, 3 * 48 * 4, 48),
        ("mul", lambda a, b: a * b[0], (48 + 8 + 48) * 4, 48),
        ("mul", lambda a, b: a * 2.0, 2 * 48 * 4, 48),
        ("gt", lambda a, b: a > b, 2 * 48 * 4 + 48, 48),
        ("where", lambda a, b: gg.where(a > b, a, b), 48 + 3 * 48 * 4, 48),
        ("sigmoid", lambda a, b: gg.sigmoid(a), 2 * 48 * 4, 4 * 48),
        ("add", lambda a, b: a.add_(b), 3 * 48 * 4, 48),
        ("matmul", lambda a, b: a @ b.T, (48 + 48 + 36) * 4, 2 * 6 * 8 * 6),
        ("sum", lambda a, b: a.sum(1), (48 + 6) * 4, 48),
        ("cumsum", lambda a, b: a.cumsum(0), 2 * 48 * 4, 48),
        ("amax", lambda a, b: a.amax(), (48 + 1) * 4, 48),
        ("argmax", lambda a, b: a.argmax(1), 48 * 4 + 6 * 8, 48),
        ("cast", lambda a, b: a.to(gg.int64), 48 * 4 + 48 * 8, 0),
        ("add", lambda a, b: a.to(gg.int32) + b.to(gg.int32), 3 * 48 * 4, 0),
        ("fill", lambda a, b: a.zero_(), 48 * 4, 0),
    ],
)
def test_bytes_and_flops_are_exact(device, name, run, nbytes, flops):
    a, b = gg.randn(6, 8, device=device), gg.randn(6, 8, device=device)
    with gg.profile() as p:
        run(a, b)
    event = [e for e in p.events if e.op == name][-1]
    assert (event.bytes, event.flops) == (nbytes, flops), event


def test_bytes_and_flops_of_convolutions_and_indices(device):
    x, w = gg.randn(2, 4, 6, 6, device=device, requires_grad=True), gg.randn(8, 2, 3, 3, device=device)
    with gg.profile() as p:
        y = nn.functional.conv2d(x, w.requires_grad_(), groups=2)
        y.backward(y.detach())
    work = 2 * (2 * 8 * 4 * 4) * (2 * 3 * 3)
    size = {"x": 2 * 4 * 36 * 4, "w": 8 * 18 * 4, "y": 2 * 8 * 16 * 4}
    for event in (e for e in p.events if e.op == "convolution"):
        assert (event.bytes, event.flops) == (sum(size.values()), work), event
    assert {e.call for e in p.events if e.phase == "backward"} >= {"convolve_input_grad", "convolve_weight_grad"}

    table, index = gg.randn(10, 4, device=device), gg.tensor([1, 1, 7], device=device)
    with gg.profile() as p:
        table.index_select(0, index)
    event = only(p, "index_select")
    assert (event.bytes, event.flops) == (2 * 3 * 4 * 4 + 3 * 8, 0)  # three rows read and written, and the index

    with gg.profile() as p:
        gg.tensor([1.0, 2.0], device=device).tolist()
    assert [(e.call, e.bytes) for e in p.events] == [("from_host", 8), ("to_host", 8)]


def test_operations_in_an_expression():
    known = {"a + b": 1, "-a": 1, "exp(a)": 1, "(T)1 / sqrt(a)": 2, "a ? b : c": 0, "a >= b": 1, "a": 0}
    assert {text: costs.operations(text) for text in known} == known
    assert costs.operations("(T)1 / ((T)1 + exp(-a))") == 4
    assert costs.operations("fabs(a) > K(20) ? (a > 0 ? K(1) : K(-1)) : tanh(a)") == 4


def test_factorizations(device):
    a = gg.eye(6, device=device) * 2
    with gg.profile() as p:
        gg.linalg.cholesky(a)
        gg.linalg.svd(a)
    calls = {e.call: e for e in p.events}
    assert calls["factorize cholesky"].flops == 6**3 // 3
    assert calls["factorize svd"].flops == 0  # iterative: not counted


def parts():
    """All that the profiler replaces, as it is now."""
    rows = [op.forward for op in recording.table.OPS.values()]
    nodes = [k.__dict__["apply"] for k in recording.Node.__subclasses__() if "apply" in k.__dict__]
    others = [recording.engine._walk, recording.optimizer.run_step, recording.table.around_forward]
    return [*rows, *nodes, *others, list(recording.on_open)]


def test_off_again_afterwards(device):
    train(device)  # so that all rows this needs exist
    backend = backend_of(device)
    before, kind, own = parts(), type(backend), set(vars(backend))
    with gg.profile():
        assert type(backend) is not kind and parts() != before
        with gg.profile() as inner:
            train(device, 1)
        assert type(backend) is not kind
    assert type(backend) is kind and parts() == before and set(vars(backend)) == own
    assert recording.recorder.listeners == () and recording.recorder.timelines == {}

    n = len(inner.events)
    assert n
    (gg.ones(3, device=device) * 2).tolist()
    assert len(inner.events) == n

    with pytest.raises(ZeroDivisionError), gg.profile() as p:
        _ = gg.ones(3, device=device) + 1
        raise ZeroDivisionError
    assert type(backend) is kind and parts() == before
    assert [e.name for e in p.events] == ["fill", "add"]


def test_a_call_that_raises_leaves_nothing_behind(device):
    x, bad = gg.ones(3, device=device), gg.tensor([7], device=device)
    with gg.profile() as p:
        with pytest.raises(IndexError):
            x.index_select(0, bad).tolist()
        _ = x + 1
    assert not recording.here.inside and recording.here.op == ""
    assert only(p, "add").device_time_ns >= 0


def test_nested_profiles_and_results(device):
    x = gg.randn(5, 5, device=device)
    plain = (x @ x).tanh()
    with gg.profile() as outer:
        first = (x @ x).tanh()
        with gg.profile() as inner:
            second = (x @ x).tanh()
        _ = x + 1
    assert plain.tolist() == first.tolist() == second.tolist()
    assert [e.name for e in inner.events] == ["matmul", "tanh"]
    assert [e.name for e in outer.events] == ["matmul", "tanh"] * 2 + ["add"]


def test_two_devices(device):
    x = gg.ones(64, device=device)
    with gg.profile() as p:
        _ = (x + 1).cpu() * 2
    assert [(e.op, e.device.type) for e in p.events if e.op in ("add", "mul")] == [("add", device), ("mul", "cpu")]
    if device != "cpu":
        assert p.table(peaks=False).splitlines()[0].split()[1] == "device"


def test_a_device_opened_meanwhile(monkeypatch):
    from tests.pretend import PretendBackend

    gg.register_backend("newcomer", PretendBackend)
    monkeypatch.setattr(PretendBackend, "name", "newcomer")
    with gg.profile() as p:
        _ = gg.ones(3, device="newcomer:3") + 1
        kind = type(backend_of("newcomer:3"))
    assert [e.op for e in p.events][:2] == ["fill", "add"]
    assert kind is not PretendBackend and type(backend_of("newcomer:3")) is PretendBackend


def test_a_row_declared_meanwhile(device):
    table = recording.table
    with gg.profile() as p:
        try:

            @table.primitive("declared_late")
            def late(backend, a):
                return backend.copy(a)

            late(gg.ones(3, device=device))
        finally:
            op = table.OPS.pop("declared_late")
        table.OPS["declared_late"] = op
    assert table.OPS.pop("declared_late").forward.__name__ == "late" and not hasattr(op.forward, "plain")
    assert [e.name for e in p.events] == ["fill", "declared_late"]


def test_a_routine_the_backend_offers(monkeypatch):
    backend = backend_of("cpu")
    monkeypatch.setattr(type(backend), "fused_softmax", lambda self, a, axis: a, raising=False)
    monkeypatch.setattr(type(backend), "fused_other", lambda self, a, b: (a, b), raising=False)
    a = backend.empty((2, 3), gg.float32.numpy)
    with gg.profile() as p:
        backend.offer("softmax")(a, 1)
        backend.offer("other")(a, b=a)
        assert backend.offer("unheard_of") is None
    assert [(e.op, e.bytes, e.flops) for e in p.events] == [("fused_softmax", 48, 30), ("fused_other", 48, 0)]


def test_threads(device):
    xs = [gg.randn(16, 16, device=device) for _ in range(3)]

    def work(x):
        with gg.profiler.record_function("mine"):
            for _ in range(20):
                _ = x * 2

    with gg.profile() as p:
        threads = [threading.Thread(target=work, args=(x,), name=f"user {i}") for i, x in enumerate(xs)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    counts = defaultdict(int)
    for e in p.events:
        assert e.ranges == ("mine",)
        counts[e.thread] += 1
    assert counts == {f"user {i}": 20 for i in range(3)}
    assert {r.thread for r in p.ranges} == set(counts)


def test_double_backward_and_functions(device):
    class Twice(gg.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g * 2

    x = gg.ones(3, device=device, requires_grad=True)
    with gg.profile() as p:
        (g,) = gg.autograd.grad((Twice.apply(x) * x).exp().sum(), x, create_graph=True)
        g.sum().backward()
    names = {e.name for e in p.events}
    assert {"exp", "exp (backward)", "mul (backward)", "accumulate (backward)"} <= names
    assert any("Twice" in name and name.endswith("(backward)") for name in names), names


def test_the_table(device):
    p, _ = train(device)
    limits = gg.profiler.peak(device)
    assert limits.copy > 1e8 and limits.gemm > 1e7
    assert gg.profiler.peak(device) is limits  # measured once
    text = str(p)
    assert text == p.table() == p.key_averages().table() == str(p.key_averages()) == p.events.table()
    lines = text.splitlines()
    assert lines[0].split()[:2] == ["operation", "calls"] and "of copy" in lines[0] and "of GEMM" in lines[0]
    assert f"{gg.device(device)}: " in lines[-1] and "GB/s" in lines[-1]
    assert "block" in text and "Optimizer.step#SGD.step" in text

    averages = [a for a in p.key_averages() if not a.is_user_annotation]
    shown = p.table(row_limit=3, peaks=False).splitlines()
    largest = sorted(averages, key=lambda a: -a.device_time_total)[:3]
    assert [line.startswith(a.key + " ") for a, line in zip(largest, shown[2:5], strict=True)] == [True] * 3
    assert shown[5] == f"... and {len(averages) - 3} more"

    most = p.table(sort_by="count", peaks=False).splitlines()[2]
    assert most.startswith(max(averages, key=lambda a: a.count).key)
    names = p.table(sort_by="name", peaks=False).splitlines()[2 : 2 + len(averages)]
    assert names == sorted(names)
    for column in (
        "cpu_time_total",
        "self_cuda_time_total",
        "device_time",
        "flops",
        "bytes",
        "GB/s",
        "GFLOP/s",
        "mean",
    ):
        assert p.key_averages().table(sort_by=column, row_limit=10, peaks=False)
    with pytest.raises(ValueError, match="nonsense"):
        p.table(sort_by="nonsense")
    assert p.key_averages().table(header="A step", peaks=False).startswith("A step\n")
    assert "total us" in p.table(time_unit="us", peaks=False)


def test_peaks_are_not_recorded(monkeypatch, device):
    key = backend_of(device), gg.float32.numpy
    kept = gg.profiler.peak(device)
    monkeypatch.setitem(_measured, key, kept)
    monkeypatch.delitem(_measured, key)
    monkeypatch.setattr("gpugrad.profiler.peaks._LONG_ENOUGH", 1)
    with gg.profile() as p:
        _ = gg.ones(3, device=device) + 1
        assert "add" in str(p)  # while it is on
    assert [e.name for e in p.events] == ["fill", "add"]
    assert _measured[key] is not kept


def test_averages(device):
    a, b = gg.randn(4, 4, device=device), gg.randn(8, 8, device=device)
    with gg.profile() as p:
        for x in (a, a, b):
            _ = x @ x
    (row,) = p.key_averages()
    assert (row.key, row.count, row.flops, row.device) == ("matmul", 3, 2 * (64 + 64 + 512), gg.device(device))
    assert row.device_time == pytest.approx(row.device_time_total / 3)
    assert row.cpu_time_total == row.self_cpu_time_total == pytest.approx(sum(e.cpu_time for e in p.events()))
    rows = p.key_averages(group_by_input_shape=True)
    assert {r.input_shapes: r.count for r in rows} == {((4, 4), (4, 4)): 2, ((8, 8), (8, 8)): 1}
    assert "[[4, 4], [4, 4]]" in rows.table(peaks=False)
    total = rows.total_average()
    assert (total.key, total.count, total.bytes) == ("Total", 3, row.bytes)
    with pytest.raises(NotImplementedError, match="record_function"):
        p.key_averages(group_by_stack_n=5)


def test_chrome_trace(device, tmp_path):
    p, _ = train(device)
    p.add_metadata("run", "7")
    p.add_metadata_json("sizes", "[1, 2]")
    p.export_chrome_trace(tmp_path / "trace.json")
    p.events.export_chrome_trace(str(tmp_path / "trace.json.gz"))
    assert sorted(f.name for f in tmp_path.iterdir()) == ["trace.json", "trace.json.gz"]  # no temporary files
    text = (tmp_path / "trace.json").read_text()
    assert gzip.decompress((tmp_path / "trace.json.gz").read_bytes()).decode() == text
    trace = json.loads(text)
    assert trace["otherData"]["run"] == "7" and trace["otherData"]["sizes"] == [1, 2]
    processes = {e["pid"]: e["args"]["name"] for e in trace["traceEvents"] if e.get("name") == "process_name"}
    tracks = defaultdict(list)
    for e in trace["traceEvents"]:
        if e["ph"] == "X":
            tracks[e["pid"], e["tid"]].append(e)
    assert set(processes) == {pid for pid, _ in tracks}
    place = f"device {gg.device(device)}"
    assert {"blocks", place} <= set(processes.values())
    for (pid, _), slices in tracks.items():
        assert all(s["dur"] >= 0 and s["cat"] == processes[pid] for s in slices)
        if processes[pid] == "blocks":
            assert {s["name"] for s in slices} == {"forward", "Optimizer.step#SGD.step"}
            continue
        for one, next_ in zip(slices, slices[1:], strict=False):
            assert one["ts"] + one["dur"] <= next_["ts"] + 1e-3
    names = {s["name"] for (pid, _), slices in tracks.items() if processes[pid] == place for s in slices}
    assert names == {e.name for e in p.events}


def test_record_function_alone_and_as_a_decorator():
    with gg.profiler.record_function("nobody listens"):
        pass

    @gg.profiler.record_function("shout")
    def shout(x, loudness=1):
        return x * loudness

    with gg.profile() as p:
        with gg.profiler.record_function("outer", "with a remark"):
            y = shout(gg.ones(2), loudness=3)
        shout(y)
    assert y.tolist() == [3.0, 3.0] and shout.__name__ == "shout"
    assert [e.ranges for e in p.events if e.op == "mul"] == [("outer(with a remark)", "shout"), ("shout",)]
    assert sorted(r.name for r in p.ranges) == ["outer(with a remark)", "shout", "shout"]
    blocks = {a.key: a for a in p.key_averages() if a.is_user_annotation}
    assert blocks["shout"].count == 2 and blocks["shout"].self_cpu_time_total == 0
    assert blocks["shout"].flops == 4 and blocks["outer(with a remark)"].flops == 2


def test_schedule(tmp_path):
    plan = gg.profiler.schedule(wait=1, warmup=1, active=2, repeat=2)
    names = [plan(i).name for i in range(10)]
    assert names == ["NONE", "WARMUP", "RECORD", "RECORD_AND_SAVE"] * 2 + ["NONE"] * 2
    with pytest.raises(ValueError, match="active"):
        gg.profiler.schedule(wait=1, warmup=0, active=0)
    seen = []
    with gg.profile(schedule=plan, on_trace_ready=lambda p: seen.append([e.input_shapes for e in p.events])) as p:
        for i in range(10):
            _ = gg.arange(i + 1).float().exp()
            p.step()
    shapes = [[s[0] for s in batch if s] for batch in seen]
    assert shapes == [[(3,)] * 2 + [(4,)] * 2, [(7,)] * 2 + [(8,)] * 2]
    assert {r.name for r in p.ranges} == {"ProfilerStep#6", "ProfilerStep#7"}

    handler = gg.profiler.tensorboard_trace_handler(str(tmp_path / "log"), "worker", use_gzip=True)
    with gg.profile(on_trace_ready=handler):
        _ = gg.ones(2) + 1
    (file,) = (tmp_path / "log").iterdir()
    assert file.name.startswith("worker.") and file.name.endswith(".pt.trace.json.gz")


@pytest.mark.filterwarnings("ignore:Profiler won't be using warmup")
@pytest.mark.parametrize("numbers", [(1, 1, 2, 2, 0, 0), (0, 0, 1, 0, 3, 0), (2, 1, 3, 2, 1, 1), (3, 0, 2, 0, 2, 1)])
def test_schedule_as_in_pytorch(torch, numbers):
    options = dict(zip("wait warmup active repeat skip_first skip_first_wait".split(), numbers, strict=True))
    ours, theirs = gg.profiler.schedule(**options), torch.profiler.schedule(**options)
    assert [ours(i).name for i in range(25)] == [theirs(i).name for i in range(25)]


def test_arguments():
    Activity = gg.profiler.ProfilerActivity
    with gg.profiler.profile(activities=[Activity.CPU, Activity.CUDA], record_shapes=True, with_flops=True) as p:
        _ = gg.ones(2) + 1
    assert len(p.events) == 2 and gg.autograd.profiler.profile is gg.profile
    with gg.profile(activities={Activity.CUDA}) as p:
        _ = gg.ones(2) + 1
    assert p.events == [] and p.table().endswith("nothing was recorded")
    with pytest.raises(ValueError, match="activities"):
        gg.profile(activities=[])
    for name in ("profile_memory", "with_stack", "with_modules"):
        with pytest.raises(NotImplementedError, match=name):
            gg.profile(**{name: True})
    p.start()
    with pytest.raises(RuntimeError, match="on already"):
        p.start()
    p.stop()
    p.stop()


def test_arguments_are_pytorchs(torch):
    import inspect

    for name in ("profile", "schedule", "tensorboard_trace_handler", "record_function"):
        ours, theirs = getattr(gg.profiler, name), getattr(torch.profiler, name)
        assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters), name


class FakeCuda:
    """As much of CuPy as a timeline uses: a clock that events read, and launches that move it on."""

    def __init__(self):
        self.now = 0.0  # milliseconds
        fake = self

        class Event:
            def record(self, stream=None):
                assert stream is fake.Stream.null
                self.at = fake.now

            def synchronize(self):
                self.waited = True

        class Stream:
            null = object()

        self.Event, self.Stream = Event, Stream

    def get_elapsed_time(self, begin, end):
        return end.at - begin.at


def test_the_timeline_of_cuda_by_a_stand_in():
    fake = FakeCuda()

    class Blas:
        CUBLAS_GEMM_DEFAULT = -1

        @staticmethod
        def gemmStridedBatchedEx(n):
            fake.now += n

    class Stand:
        _cuda, _blas = fake, (Blas, {})

        def _use(self):
            pass

        def _work(self, n):
            fake.now += n
            return n

        _launch = _run_graph = _read = _write = _routine = _work

    stand = Stand()
    timeline = cuda._EventTimeline(stand)
    assert not timeline.concurrent
    stand._launch(1)  # outside of a call
    mark = timeline.start()
    assert stand._launch(2) == 2
    fake.now += 5  # the host is slow
    stand._blas[0].gemmStridedBatchedEx(3)
    timeline.stop(mark)
    stand._read(1)
    assert stand._blas[0].CUBLAS_GEMM_DEFAULT == -1
    timeline.close()
    assert vars(stand) == {"_blas": (Blas, {})}
    (a, b), (c, d) = timeline.spans(mark)
    assert (b - a, c - b, d - c) == (2_000_000, 5_000_000, 3_000_000)
    assert a == timeline._origin + 1_000_000


def test_the_queue_is_the_old_one_again():
    backend = pytest.importorskip("pyopencl") and gg.is_available("opencl") and backend_of("opencl")
    if not backend:
        pytest.skip("no OpenCL device works here")
    before = backend._queue, backend._enqueue, backend._transfer
    with gg.profile():
        assert backend._queue is not before[0]
    assert (backend._queue, backend._enqueue, backend._transfer) == before


def test_every_device_that_measures_says_so(device):
    """A call's spans lie between its beginning and the end of the profile, up to what clocks differ by."""
    x = gg.randn(256, 256, device=device)
    with gg.profile() as p:
        for _ in range(5):
            x = x @ x * 1e-2
    for e in p.events:
        for begin, end in e.spans_ns:
            assert begin >= e.start_ns - 2_000_000
            assert end <= p.events[0].start_ns + p.wall_time * 1e3 + 2_000_000
