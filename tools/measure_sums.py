"""The error of long sums, on every device present, eager and compiled, beside PyTorch's.

    python tools/measure_sums.py [--elements 16777216]

Relative to the exact sum of the same float32 numbers, which math.fsum gives. ``cumsum``: the largest error of any
element, relative to the largest element. The lines are the table of docs/numerics.md.
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
    total = math.fsum(wide)
    if name == "sum":
        return total
    if name == "mean":
        return total / x.size
    if name == "var":
        return math.fsum(np.square(wide - total / x.size)) / (x.size - 1)
    squares = math.fsum(np.square(wide))
    return math.sqrt(squares) if name == "norm" else squares


def error(got: np.ndarray, want: Any) -> float:
    return float(np.max(np.abs(got.astype(np.longdouble) - want)) / np.max(np.abs(want)))


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
        found[way] = error(function(make(x)).cpu().numpy(), want)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--elements", type=int, default=1 << 24)
    options = parser.parse_args()
    heads: list[str] = []
    for kind in ("uniform", "offset"):
        x = data(kind, options.elements)
        for name in FUNCTIONS:
            found = measure(name, x)
            if not heads:
                heads = list(found)
                print("| | " + " | ".join(heads) + " |\n|---|" + "---|" * len(heads))
            print(f"| `{name}`, {kind} | " + " | ".join(f"{e:.1e}" for e in found.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
