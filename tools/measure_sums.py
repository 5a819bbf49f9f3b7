"""The error of long sums, on every device present, eager and compiled, beside PyTorch's.

    python tools/measure_sums.py [--elements 16777216] [--draws 8]

Relative to the exact sum of the same float32 numbers, which math.fsum gives; where there are several sums, the root of
the mean square of their errors, relative to the largest. ``cumsum``: the largest error of any element. Of the errors of
several draws the root of the mean square. The lines are the table of docs/numerics.md.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

import numpy as np

import gpugrad as gg

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "sum": lambda x: x.sum(),
    "mean": lambda x: x.mean(),
    "var": lambda x: x.var(),
    "norm": lambda x: x.norm(),
    "dot": lambda x: x @ x,
    "sum of 256 columns": lambda x: x.reshape(-1, 256).sum(0),
    "sum of 256 rows": lambda x: x.reshape(256, -1).sum(1),
    "cumsum": lambda x: x.cumsum(0),
}


def data(kind: str, n: int, seed: int = 0) -> np.ndarray:
    """``uniform`` in [0, 1); ``offset``: 1000 and a normal number, whose variance has few digits in float32."""
    rng = np.random.default_rng(seed)
    if kind == "uniform":
        return rng.random(n, np.float32)
    return (1000 + rng.standard_normal(n)).astype(np.float32)


def exact(name: str, x: np.ndarray) -> Any:
    wide = x.astype(np.float64)
    if name == "cumsum":
        return np.cumsum(wide.astype(np.longdouble))
    if name.endswith(("columns", "rows")):
        many = wide.reshape(-1, 256).T if name.endswith("columns") else wide.reshape(256, -1)
        return np.array([math.fsum(part) for part in many])
    total = math.fsum(wide)
    if name == "sum":
        return total
    if name == "mean":
        return total / x.size
    if name == "var":
        return math.fsum(np.square(wide - total / x.size)) / (x.size - 1)
    squares = math.fsum(np.square(wide))
    return math.sqrt(squares) if name == "norm" else squares


def error(name: str, got: np.ndarray, want: Any) -> float:
    off = np.abs(got.astype(np.longdouble) - want) / np.max(np.abs(want))
    return float(np.max(off) if name == "cumsum" else np.sqrt(np.mean(off * off)))


def ways(with_torch: bool = True) -> dict[str, tuple[Callable[[np.ndarray], Any], bool]]:
    """Name -> (makes a tensor of an array, whether the function is compiled)."""
    found: dict[str, tuple[Callable[[np.ndarray], Any], bool]] = {}
    for device in ("cpu", "opencl", "cuda"):
        if gg.is_available(device):
            for compiled in (False, True):
                found[device + " compiled" * compiled] = (lambda x, d=device: gg.tensor(x, device=d), compiled)
    if with_torch:
        try:
            import torch
        except ImportError:
            return found
        found["PyTorch"] = (torch.from_numpy, False)
    return found


def measure(name: str, x: np.ndarray, with_torch: bool = True) -> dict[str, float]:
    """Way -> relative error."""
    want = exact(name, x)
    found = {}
    for way, (make, compiled) in ways(with_torch).items():
        function = FUNCTIONS[name]
        if compiled:
            plain = function
            function = gg.compile(lambda t, plain=plain: plain(t).clone())
            function(make(x))
        found[way] = error(name, function(make(x)).cpu().numpy(), want)
    return found


def measured(name: str, kind: str, n: int, draws: int) -> dict[str, float]:
    """:func:`measure` of several draws."""
    errors = [measure(name, data(kind, n, seed)) for seed in range(draws)]
    return {way: math.sqrt(sum(e[way] ** 2 for e in errors) / draws) for way in errors[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--elements", type=int, default=1 << 24)
    parser.add_argument("--draws", type=int, default=8)
    options = parser.parse_args()
    heads: list[str] = []
    for kind in ("uniform", "offset"):
        for name in FUNCTIONS:
            found = measured(name, kind, options.elements, options.draws)
            if not heads:
                heads = list(found)
                print("| | " + " | ".join(heads) + " |\n|---|" + "---|" * len(heads))
            print(f"| {name}, {kind} | " + " | ".join(f"{e:.1e}" for e in found.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
