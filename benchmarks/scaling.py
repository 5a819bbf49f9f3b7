"""How the time of a step grows with its work, measured: elements, layers, batch, graph nodes, parameter tensors.

    python -m benchmarks.scaling --device cpu --out docs/scaling.md
    python -m benchmarks.scaling --only layers,batch --keep benchmarks/results/scaling_cpu.json --out docs/scaling.md

With ``--keep`` the figures are added to those that the file has, so that the axes can be measured one after another;
the page is then written from all of them.

Each axis is measured over a range of sizes; a line is fitted to the logarithms of its larger half, where fixed costs no
longer show and the data are past the caches. Its slope is 1 where the time is proportional to the work, below where
something is still amortised. A slope above ``LIMIT`` that is no lower between the two largest sizes is a cost that
grows faster than the work: then the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.compare import limit_threads

LIMIT = 1.1
Step = Callable[[], Any]


class Axis(NamedTuple):
    """``make(gg, device, size)`` gives the step to time; ``fixed`` says what stays the same."""

    name: str
    fixed: str
    sizes: tuple[int, ...]
    make: Callable[[Any, Any, int], Step]
    remark: str = ""  # what the figures show besides


class Measured(NamedTuple):
    axis: Axis
    sizes: tuple[int, ...]
    seconds: list[float]

    @property
    def slope(self) -> float:
        """Of the larger half of the sizes, three at least."""
        import numpy as np

        tail = max(3, (len(self.sizes) + 1) // 2)
        return float(np.polyfit(np.log(self.sizes[-tail:]), np.log(self.seconds[-tail:]), 1)[0])

    @property
    def last(self) -> float:
        """The slope between the two largest sizes."""
        return math.log(self.seconds[-1] / self.seconds[-2]) / math.log(self.sizes[-1] / self.sizes[-2])

    @property
    def superlinear(self) -> bool:
        return min(self.slope, self.last) > LIMIT


def _elements(gg: Any, device: Any, n: int) -> Step:
    x = gg.rand(n, device=device, requires_grad=True)
    g = gg.ones(n, device=device)

    def step() -> None:
        x.grad = None
        (gg.tanh(x * 2 + 1) * gg.exp(-x * x)).backward(g)

    return step


def _rows(gg: Any, device: Any, n: int) -> Step:
    x = gg.rand(n, 256, device=device, requires_grad=True)
    g = gg.rand(n, 256, device=device)

    def step() -> None:
        x.grad = None
        x.softmax(-1).backward(g)

    return step


def _training(gg: Any, model: Any, x: Any, target: Any) -> Step:
    optimizer = gg.optim.SGD(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        gg.nn.functional.cross_entropy(model(x), target).backward()
        optimizer.step()

    return step


def _layers(gg: Any, device: Any, n: int) -> Step:
    nn = gg.nn
    hidden = [layer for _ in range(n) for layer in (nn.Linear(64, 64), nn.ReLU())]
    model = nn.Sequential(*hidden, nn.Linear(64, 10)).to(device)
    return _training(gg, model, gg.rand(64, 64, device=device), gg.randint(0, 10, (64,), device=device))


def _batch(gg: Any, device: Any, n: int) -> Step:
    nn = gg.nn
    model = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10)).to(device)
    return _training(gg, model, gg.rand(n, 784, device=device), gg.randint(0, 10, (n,), device=device))


def _images(gg: Any, device: Any, n: int) -> Step:
    nn = gg.nn
    model = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2704, 10)).to(device)
    return _training(gg, model, gg.rand(n, 1, 28, 28, device=device), gg.randint(0, 10, (n,), device=device))


def _nodes(gg: Any, device: Any, n: int) -> Step:
    x = gg.tensor(0.5, device=device, requires_grad=True)

    def step() -> None:
        x.grad = None
        y = x
        for _ in range(n // 2):
            y = y * 0.9995
            y = y + x
        y.backward()

    return step


def _values(gg: Any, device: Any, n: int) -> Step:
    def step() -> None:
        x = gg.Value(0.5)
        y = x
        for _ in range(n // 2):
            y = y * 0.9995
            y = y + x
        y.backward()

    return step


def _fan(gg: Any, device: Any, n: int) -> Step:
    """One leaf used n times: its gradient is a sum of n terms."""
    x = gg.rand(16, device=device, requires_grad=True)

    def step() -> None:
        x.grad = None
        gg.stack([x * 0.5 for _ in range(n)]).sum().backward()

    return step


def _tensors(gg: Any, device: Any, n: int) -> Step:
    parameters = [gg.rand(100, device=device, requires_grad=True) for _ in range(n)]
    for p in parameters:
        p.grad = gg.rand(100, device=device)
    return gg.optim.AdamW(parameters).step


_OBJECTS = (
    "A node is a handful of Python objects, which Python's collector of cycles walks over now and then, older ones "
    "more rarely: that part of the time grows with the graph until it has its share. With the collector off "
    "(`gc.disable()`) a node of 102,400 takes the time of one of 25,600."
)

AXES = (
    Axis("elements", "elementwise chain of six operations, forward and backward",
         tuple(1 << k for k in (10, 12, 14, 16, 18, 20, 22, 23, 24, 25)), _elements),
    Axis("rows", "softmax of rows of 256, forward and backward", tuple(4**k for k in range(1, 9)), _rows),
    Axis("layers", "training step of an MLP, 64 wide, batch 64", (1, 2, 4, 8, 16, 32, 64, 128, 256), _layers),
    Axis("batch", "training step of an MLP 784-256-10", (4, 16, 64, 256, 1024, 4096, 16384), _batch),
    Axis("images", "training step of a small CNN, 28x28", (4, 16, 64, 256, 1024, 4096), _images),
    Axis("graph nodes", "chain of scalar operations, forward and backward",
         (100, 400, 1600, 6400, 25_600, 102_400, 409_600), _nodes, _OBJECTS),
    Axis("value nodes", "the same of gpugrad.Value", (100, 400, 1600, 6400, 25_600, 102_400, 409_600), _values,
         _OBJECTS),
    Axis("uses of a leaf", "a leaf of 16 elements used in every term", (16, 64, 256, 1024, 4096, 16_384), _fan),
    Axis("parameter tensors", "AdamW step, tensors of 100 elements", (4, 16, 64, 256, 1024, 4096), _tensors),
)  # fmt: skip


def seconds_per_step(step: Step, wait: Callable[[], Any], repeats: int, sample: float) -> float:
    """The best of ``repeats`` samples: growth is asked about, not noise."""
    step()
    wait()
    best, steps = float("inf"), 1
    for number in range(repeats + 1):
        start = time.perf_counter()
        for _ in repeat(None, steps):
            step()
        wait()
        taken = (time.perf_counter() - start) / steps
        if number == 0:  # calibration
            steps = max(1, min(10_000, round(sample / max(taken, 1e-7))))
            continue
        best = min(best, taken)
    return best


def measure(axis: Axis, device: str, repeats: int, sample: float, largest: int | None = None) -> Measured:
    """``largest`` leaves out sizes above it, for a quick run."""
    import gpugrad as gg

    where = gg.device(device)
    sizes = tuple(n for n in axis.sizes if largest is None or n <= largest)
    wait = lambda: gg.synchronize(where)  # noqa: E731
    return Measured(axis, sizes, [seconds_per_step(axis.make(gg, where, n), wait, repeats, sample) for n in sizes])


def kept(path: Path, results: list[Measured], where: dict[str, Any]) -> list[Measured]:
    """Adds ``results`` to those in ``path``; all of them, in the order of the axes. Figures of another processor,
    device or number of threads (``where``) are dropped."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    axes = found["axes"] if found.get("where") == where else {}
    for m in results:
        axes[m.axis.name] = {"sizes": m.sizes, "seconds": m.seconds, "slope": m.slope}
    path.write_text(json.dumps({"where": where, "axes": axes}, indent=1) + "\n")
    return [Measured(a, tuple(axes[a.name]["sizes"]), axes[a.name]["seconds"]) for a in AXES if a.name in axes]


def page(results: list[Measured], command: str, device: str, threads: int) -> str:
    from benchmarks import report

    where = report.machine()
    lines = [
        "# Cost grows with the work",
        "",
        f"Written by `{command}` on {where['date']}: {where['processor']}, {threads} of {where['cores']} cores, device "
        f"`{device}`, Python {where['python']}.",
        "",
        "Best times of a step. The slope is that of a line through the logarithms of time and size, over the larger",
        "half of the sizes, and then of one between the two largest: 1 is proportional to the work. Where both are",
        f"above {LIMIT}, something grows faster than the work.",
        "",
        "| what grows | what stays | from | to | slope | at the end |",
        "|---|---|---|---|---|---|",
    ]
    for m in results:
        last = f"{m.last:.2f}" + (" (superlinear)" if m.superlinear else "")
        lines.append(f"| {m.axis.name} | {m.axis.fixed} | {m.sizes[0]:,} | {m.sizes[-1]:,} | {m.slope:.2f} | {last} |")
    for m in results:
        title, fixed = (text[:1].upper() + text[1:] for text in (m.axis.name, m.axis.fixed))
        lines += ["", f"## {title}", "", f"{fixed}.", ""]
        lines += ["| size | time of a step | per unit |", "|---|---|---|"]
        for n, s in zip(m.sizes, m.seconds, strict=True):
            lines.append(f"| {n:,} | {report.duration(s)} | {report.duration(s / n)} |")
        if m.axis.remark:
            lines += ["", m.axis.remark]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", metavar="AXIS,...", help=", ".join(axis.name for axis in AXES) + "; '' for none")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--sample", type=float, default=0.05, metavar="SECONDS")
    parser.add_argument("--largest", type=int, help="leave out larger sizes")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page; without it the slopes are printed alone")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="add the figures to this JSON file")
    options = parser.parse_args(arguments)
    threads = limit_threads(options.threads)
    names = [axis.name for axis in AXES] if options.only is None else [n for n in options.only.split(",") if n]
    if unknown := set(names) - {axis.name for axis in AXES}:
        print(f"scaling: no axis is called {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    results = []
    for axis in AXES:
        if axis.name not in names:
            continue
        results.append(measure(axis, options.device, options.repeats, options.sample, options.largest))
        print(f"{axis.name}: slope {results[-1].slope:.2f}", flush=True)
    if options.keep:
        from benchmarks import report

        where = {k: report.machine()[k] for k in ("processor", "cores", "python")}
        results = kept(options.keep, results, where | {"device": options.device, "threads": threads})
    if options.out:
        command = "python -m benchmarks.scaling " + " ".join(arguments or sys.argv[1:])
        options.out.write_text(page(results, command, options.device, threads))
        print(f"wrote {options.out}")
    return 1 if any(m.superlinear for m in results) else 0


if __name__ == "__main__":
    sys.exit(main())
