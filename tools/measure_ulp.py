"""How far off the elementwise functions are, in units of the last place (ulp), on every device present.

    python tools/measure_ulp.py            prints the table
    python tools/measure_ulp.py --write    and puts it between the markers of docs/numerics.md

Each function is computed at some 4,000 numbers of a dtype: spread over its whole domain by exponent, dense where it
is used most, with the ends of the range. The reference is mpmath's at 60 digits, rounded to nothing. An ulp is the
distance of the two numbers of the dtype that enclose the reference, of the least denormal below the normal numbers.
"compiled" is what ``gpugrad.compile`` makes of it: on the CPU the C compiler's code from the kernels' texts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import mpmath
import numpy as np

import gpugrad as gg
import gpugrad.special
from gpugrad.devices import backend_of

sys.path.insert(0, str(Path(__file__).parent.parent))
PAGE = Path(__file__).parent.parent / "docs" / "numerics.md"
BEGIN, END = "<!-- measured: tools/measure_ulp.py -->", "<!-- end of measured -->"


class Function(NamedTuple):
    """``low`` and ``high`` bound the arguments; ``dense`` is the interval where half of them are."""

    name: str
    exact: Callable[..., object]
    low: float = -np.inf
    high: float = np.inf
    dense: tuple[float, float] = (-10.0, 10.0)


def _pole_free(function: Callable[..., object]) -> Callable[..., object]:
    def exact(x: object) -> object:
        try:
            return function(x)
        except (ValueError, ZeroDivisionError, OverflowError):
            return mpmath.nan

    return exact


m = mpmath.mp
FUNCTIONS = [
    Function("sqrt", m.sqrt, 0.0),
    Function("rsqrt", lambda x: 1 / m.sqrt(x), 0.0),
    Function("reciprocal", lambda x: 1 / x),
    Function("exp", m.exp, -800.0, 720.0, (-20.0, 20.0)),
    Function("exp2", lambda x: m.mpf(2) ** x, -1100.0, 1030.0, (-20.0, 20.0)),
    Function("expm1", m.expm1, -800.0, 720.0),
    Function("log", m.log, 0.0, dense=(0.5, 2.0)),
    Function("log2", lambda x: m.log(x, 2), 0.0, dense=(0.5, 2.0)),
    Function("log10", m.log10, 0.0, dense=(0.5, 2.0)),
    Function("log1p", m.log1p, -1.0, dense=(-0.9, 2.0)),
    Function("sin", m.sin, -1e6, 1e6),
    Function("cos", m.cos, -1e6, 1e6),
    Function("tan", m.tan, -1e6, 1e6),
    Function("asin", m.asin, -1.0, 1.0, (-1.0, 1.0)),
    Function("acos", m.acos, -1.0, 1.0, (-1.0, 1.0)),
    Function("atan", m.atan),
    Function("sinh", m.sinh, -720.0, 720.0),
    Function("cosh", m.cosh, -720.0, 720.0),
    Function("tanh", m.tanh),
    Function("asinh", m.asinh),
    Function("acosh", m.acosh, 1.0, dense=(1.0, 3.0)),
    Function("atanh", m.atanh, -1.0, 1.0, (-1.0, 1.0)),
    Function("sigmoid", lambda x: 1 / (1 + m.exp(-x)), -80.0),
    Function("erf", m.erf, dense=(-4.0, 4.0)),
    Function("erfc", m.erfc, high=30.0, dense=(-4.0, 10.0)),
    Function("lgamma", m.loggamma, 0.0, 1e30, dense=(0.1, 20.0)),
    Function("digamma", m.digamma, 0.0, 1e30, dense=(0.1, 20.0)),
    Function("i0", lambda x: m.besseli(0, x), -100.0, 80.0, (-20.0, 20.0)),
    Function("gelu", lambda x: x * m.ncdf(x), -1.0, dense=(-1.0, 5.0)),
    Function("silu", lambda x: x / (1 + m.exp(-x)), -80.0),
]
DTYPES = ("float32", "float64", "float16")


def arguments(function: Function, dtype: str, count: int, seed: int = 0) -> np.ndarray:
    """Half of them dense, half spread evenly over the exponents of the dtype, in order, each once."""
    kind = np.dtype(dtype)
    limits = np.finfo(kind)
    rng = np.random.default_rng(seed)
    low, high = max(function.low, float(limits.min)), min(function.high, float(limits.max))
    near = rng.uniform(*function.dense, count // 2)
    sizes = np.exp2(rng.uniform(np.log2(float(limits.smallest_subnormal)), np.log2(float(limits.max)), count // 2))
    far = sizes * rng.choice([-1.0, 1.0], sizes.size)
    ends = [float(limits.tiny), float(limits.smallest_subnormal), 1.0, low, high, 0.5, 2.0]
    values = np.unique(np.concatenate([near, far, ends]).astype(kind))
    wide = values.astype(np.float64)
    return values[np.isfinite(wide) & (wide >= low) & (wide <= high) & (wide != 0)]


def ulps(got: np.ndarray, exact: list[object], dtype: str) -> np.ndarray:
    """The error of each element in units of the last place of ``dtype``; infinite where one of the two is not finite
    and the other is (an exact result beyond the range is infinity's)."""
    limits = np.finfo(dtype)
    least, bits = m.mpf(float(limits.smallest_subnormal)), limits.nmant
    top = m.mpf(float(limits.max)) * (1 + m.mpf(2) ** (-bits - 2))
    errors = np.empty(len(exact))
    for i, (g, e) in enumerate(zip(got.astype(np.float64).tolist(), exact, strict=True)):
        if not m.isfinite(e) or abs(e) > top or not np.isfinite(g):
            agrees = (m.isfinite(e) and abs(e) > top and np.isinf(g)) or (not m.isfinite(e) and not np.isfinite(g))
            errors[i] = 0.0 if agrees else np.inf
            continue
        place = max(m.mpf(2) ** (m.frexp(e)[1] - 1 - bits), least) if e else least
        errors[i] = float(abs(m.mpf(g) - e) / place)
    return errors


def measure(function: Function, dtype: str, ways: dict[str, Callable[[np.ndarray], np.ndarray]], count: int, seed=0):
    """Way of computing it -> (largest error in ulp, its argument)."""
    x = arguments(function, dtype, count, seed)
    with m.workdps(40):
        exact = [m.mpmathify(_pole_free(function.exact)(m.mpf(v))) for v in x.astype(np.float64).tolist()]
        found = {}
        for name, way in ways.items():
            errors = ulps(way(x), exact, dtype)
            worst = int(np.argmax(errors))
            found[name] = (float(errors[worst]), float(x[worst]))
    return found


def function_of(name: str, library=gg):
    for home in (library, library.special, library.nn.functional):
        if hasattr(home, name):
            return getattr(home, name)
    raise KeyError(name)


def ways_of(name: str, dtype: str, with_torch: bool = True) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Each device eager and compiled, and PyTorch where it is installed."""
    f = function_of(name)
    ways = {}
    for device in ("cpu", "opencl", "cuda"):
        if not gg.is_available(device) or not backend_of(gg.device(device)).supports(np.dtype(dtype)):
            continue
        compiled = gg.compile(lambda t: f(t).clone())

        def eager(x, device=device):
            return f(gg.tensor(x, device=device)).cpu().numpy()

        def replayed(x, device=device, compiled=compiled):
            compiled(gg.tensor(x, device=device))
            return compiled(gg.tensor(x, device=device)).cpu().numpy()

        ways[device] = eager
        ways[f"{device} compiled"] = replayed
    if with_torch:
        try:
            import torch
        except ImportError:
            return ways
        ways["PyTorch"] = lambda x: function_of(name, torch)(torch.from_numpy(x)).numpy()
    return ways


def table(count: int) -> str:
    lines = []
    for dtype in DTYPES:
        heads: list[str] = []
        rows = []
        for function in FUNCTIONS:
            found = measure(function, dtype, ways_of(function.name, dtype), count)
            heads = heads or list(found)
            rows.append(
                f"| `{function.name}` | "
                + " | ".join(f"{e:.2f}" if e < 1000 else f"{e:.1e}" for e, _ in found.values())
                + " |"
            )
            worst = {k: f"{e:.3g} at {x:.9g}" for k, (e, x) in found.items() if e > 4}
            if worst:
                print(dtype, function.name, worst, file=sys.stderr)
        lines += [f"{dtype}:", "", "| | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads), *rows, ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/numerics.md")
    parser.add_argument("--count", type=int, default=4_000, help="numbers per function and dtype")
    options = parser.parse_args()
    text = table(options.count)
    print(text)
    if options.write:
        page = PAGE.read_text()
        before, rest = page.split(BEGIN)
        after = rest.split(END)[1]
        PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")


if __name__ == "__main__":
    main()
